"""How a figure's legend names the models, each with its colour."""

from collections.abc import Sequence

from matplotlib.lines import Line2D

from tasks.core.figure_style import COLOURS, mark

_WORDS = {"base": "base model", "finetuned": "fine-tuned model"}


def model_word(name: str) -> str:
    """Return a model's name for a figure; those of another system stay as they are."""
    return _WORDS.get(name, name)


def model_marks(models: Sequence[str]) -> list[Line2D]:
    """Return the legend's handles, in the order of the colours."""
    return [mark(COLOURS[i % len(COLOURS)], model_word(name)) for i, name in enumerate(models)]
