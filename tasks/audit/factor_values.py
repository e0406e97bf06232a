"""What is recorded of a picture that may explain a wrong answer: a column as numbers or words."""

import pandas as pd

from tasks.core.labels import UNKNOWN

# Units that stand behind a number; a column that is not listed here is words, whatever it holds.
UNITS = {
    "age_years": "years",
    "face_side_px": "px",
    "sharpness": "",
    "brightness": "grey levels",
    "detector_score": "",
}


def factor_values(part: pd.DataFrame, name: str) -> pd.Series | None:
    """Return a column's values.

    Parameters
    ----------
    part
        One row a picture.
    name
        The column.

    Returns
    -------
    pandas.Series or None
        Floats for a column of `UNITS`, else words; missing where the value is not known (missing,
        "unknown", "" or no number). None where there is no such column.
    """
    if name not in part.columns:
        return None
    column = part[name]
    if name in UNITS:
        return pd.to_numeric(column, errors="coerce").astype(float)
    words = column.astype("str").where(column.notna())
    return words.where(~words.isin([UNKNOWN, ""]))
