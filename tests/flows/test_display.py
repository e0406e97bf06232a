import io

from flows.pipeline.stage_display import StageDisplay
from tasks.core.terminal import Console


def test_notes_of_a_stage_are_shown_and_its_other_lines_are_not():
    out = io.StringIO()
    with StageDisplay(Console(file=out, width=200), quiet=True) as display:
        display.start("train")
        display.line("train", "Running stage 'train':")
        display.line("train", "note: a batch goes through in [two] pieces")
    assert out.getvalue() == "train                note: a batch goes through in [two] pieces\n"
