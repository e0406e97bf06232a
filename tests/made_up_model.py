"""A small network's description, for tests that need a model and not what it reads."""

from tasks.core.models.spec import ModelSpec


def compact_spec(labels: tuple[str, ...]) -> ModelSpec:
    return ModelSpec(
        architecture="compact",
        labels=labels,
        input_size_px=32,
        color="rgb",
        mean=(0.5,) * 3,
        std=(0.3,) * 3,
        version="",
        source="made up",
    )
