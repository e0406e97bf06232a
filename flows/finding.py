"""What `affectgap doctor` found: one line for a person."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """Something that a crash, a full disk or a hand left wrong.

    Attributes
    ----------
    what
        What was found.
    where
        The file, folder, batch, run or process.
    remedy
        What was done about it, or what a person has to do.
    mended
        Whether it is well again.
    """

    what: str
    where: str
    remedy: str
    mended: bool

    def __str__(self) -> str:
        return f"{'mended' if self.mended else 'FOUND '}  {self.where}: {self.what}; {self.remedy}"
