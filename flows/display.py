"""What `affectgap run` shows: one bar per stage on a terminal, one line per event in a log."""

import threading
import time
from types import TracebackType

from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from tasks.core import progress
from tasks.core.terminal import Console
from tasks.core.text import printable

NAME_WIDTH = 21  # characters of the longest stage's name, and a little


class StageDisplay:
    """Shows stages at work; safe to call from several threads.

    Parameters
    ----------
    console
        Where to write.
    quiet
        True: plain lines without bars, for logs.
    width
        Characters that the stages' names take.
    """

    def __init__(self, console: Console, quiet: bool, width: int = NAME_WIDTH) -> None:
        self._console = console
        self._width = width
        self._lock = threading.Lock()
        self._started: dict[str, float] = {}
        self._bars: dict[str, TaskID] = {}
        self._live: Progress | None = None
        if not quiet and console.is_terminal:
            self._live = Progress(
                SpinnerColumn(),
                TextColumn(f"{{task.description:<{width - 1}}}", markup=False),
                BarColumn(),
                TextColumn("{task.fields[what]}", markup=False),
                TimeElapsedColumn(),
                console=console,
                transient=True,
            )

    def __enter__(self) -> "StageDisplay":
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._live.stop()

    def start(self, stage: str) -> None:
        """Show that DVC looks at a stage."""
        with self._lock:
            self._started[stage] = time.monotonic()
            if self._live:
                self._bars[stage] = self._live.add_task(stage, total=None, what="")

    def line(self, stage: str, text: str) -> None:
        """Take a line that the stage printed: progress moves its bar, and notes are shown."""
        step = progress.parse(text)
        if step and self._live:
            what, done, total = step
            self._live.update(self._bars[stage], completed=done, total=total, what=what)
        if text.startswith(progress.NOTE):
            self._console.say(f"{stage:<{self._width}}{text}")

    def end(self, stage: str, outcome: str, style: str = "") -> None:
        """Show how a stage ended, in a style of Rich's such as `red`."""
        with self._lock:
            seconds = time.monotonic() - self._started[stage]
            if self._live:
                self._live.remove_task(self._bars.pop(stage))
            parts = (f"{stage:<{self._width}}", (printable(outcome), style), "  ")
            self._console.print(Text.assemble(*parts, (f"{seconds:.0f} s", "dim")), soft_wrap=True)

    def say(self, line: str) -> None:
        """Show a line between those of the stages."""
        with self._lock:
            self._console.say(line)
