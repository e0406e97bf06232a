"""Progress display of `affectgap run`: one bar per stage on a terminal, else one line per event."""

import threading
import time
from types import TracebackType

from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from tasks.core.parallel import progress
from tasks.core.terminal import Console
from tasks.core.text import printable

NAME_WIDTH = 21  # characters; the longest stage name and a margin


class StageDisplay:
    """Shows the running stages; thread-safe.

    `quiet` prints plain lines without bars, for logs; `width` is that of the stages' names.
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
        """Show that DVC checks or runs a stage."""
        with self._lock:
            self._started[stage] = time.monotonic()
            if self._live:
                self._bars[stage] = self._live.add_task(stage, total=None, what="")

    def line(self, stage: str, text: str) -> None:
        """Handle a line that the stage printed: progress moves its bar, notes are shown."""
        step = progress.parse(text)
        if step and self._live:
            what, done, total = step
            self._live.update(self._bars[stage], completed=done, total=total, what=what)
        if text.startswith(progress.NOTE):
            self._console.say(f"{stage:<{self._width}}{text}")

    def end(self, stage: str, outcome: str, style: str = "") -> None:
        """Show how a stage ended; `style` is one of Rich's, such as `red`."""
        with self._lock:
            seconds = time.monotonic() - self._started[stage]
            if self._live:
                self._live.remove_task(self._bars.pop(stage))
            parts = (f"{stage:<{self._width}}", (printable(outcome), style), "  ")
            self._console.print(Text.assemble(*parts, (f"{seconds:.0f} s", "dim")), soft_wrap=True)

    def say(self, line: str) -> None:
        """Print a line between those of the stages."""
        with self._lock:
            self._console.say(line)
