"""What to say where it is not known who is in a picture."""

import pandas as pd

NOBODY_KNOWN = "; subjects are not known, so each picture counts as a person of its own"
SOME_UNKNOWN = "; pictures whose subject is not known count as people of their own"


def unknown_people(part: pd.DataFrame) -> str:
    """Say how many pictures are of nobody known; "" where there is none.

    Parameters
    ----------
    part
        One row a picture; `subject_known` (booleans) where there is one, else all are known.
    """
    if "subject_known" not in part.columns or part["subject_known"].all():
        return ""
    count = int((~part["subject_known"].astype(bool)).sum())
    which = "any picture" if count == len(part) else f"{count} of {len(part)} pictures"
    return f" It is not known who is in {which}: each of these counts as a person of its own."
