"""Why a batch is not taken in: it is refused for good, or does not hold still yet."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tasks.ingest.inbox.reading import BatchReading


class RefusedError(Exception):
    """The batch goes to quarantine: one line a reason, and what was read of it until then."""

    def __init__(self, reasons: Sequence[str], reading: "BatchReading | None" = None) -> None:
        super().__init__(*reasons)
        self.reasons = list(reasons)
        self.reading = reading


class RepeatedError(RefusedError):
    """It is a batch that was given before."""


class ChangedError(Exception):
    """The batch is left in the inbox: its sender is still at it."""
