"""The vocabularies: emotions, genders, age bands, and the line that goes with shown images."""

from collections.abc import Iterable, Mapping

# The order is the order of columns `p_<emotion>` and of every table and figure.
EMOTIONS: tuple[str, ...] = (
    "anger",
    "disgust",
    "fear",
    "happiness",
    "neutral",
    "sadness",
    "surprise",
    "pain",
    "contempt",
)
GENDERS: tuple[str, ...] = ("female", "male", "unknown")
SPLITS: tuple[str, ...] = ("train", "validation", "test")
AGE_SOURCES: tuple[str, ...] = ("recorded", "dataset", "estimated")
UNKNOWN = "unknown"
ALL = "all"  # a dimension that is pooled in `groups.csv`; as a protocol: every image
HELD_OUT = "held_out"  # the protocol of images that a model was not trained on

DRAWN_DATASET = "drawn"
DRAWN_NOTICE = "drawn cohort: a demonstration, not evidence about children"

# What has to stand beside an image of a data set wherever one is shown; others need nothing.
CREDITS: Mapping[str, str] = {
    DRAWN_DATASET: DRAWN_NOTICE,
    "london": "Face Research Lab London Set (DeBruine & Jones 2017), CC BY 4.0",
    "cafe": "CAFE (LoBue & Thrasher 2015): its pictures must not be published",
    "nimh-chefs": "NIMH-ChEFS (Egger et al. 2011): for research only",
}

# Words that data sets use for the labels above; adapters may add their own codes to these.
EMOTION_WORDS: Mapping[str, str] = {
    **{name: name for name in EMOTIONS},
    "afraid": "fear",
    "angry": "anger",
    "disgusted": "disgust",
    "fearful": "fear",
    "happy": "happiness",
    "neutrality": "neutral",
    "sad": "sadness",
    "smiling": "happiness",
    "surprised": "surprise",
}
GENDER_WORDS: Mapping[str, str] = {
    **{name: name for name in GENDERS},
    "f": "female",
    "m": "male",
    "woman": "female",
    "man": "male",
    "girl": "female",
    "boy": "male",
    "": UNKNOWN,
}


def age_band(age_years: float | None, bands: Mapping[str, tuple[float, float]]) -> str:
    """Name the band that an age falls into.

    Parameters
    ----------
    age_years
        Age in years, or None (or NaN) where it is not recorded.
    bands
        Band name to half-open interval `[from, to)` in years.

    Returns
    -------
    str
        The band's name, or "unknown" for a missing age or one outside every band.
    """
    if age_years is None or age_years != age_years:
        return UNKNOWN
    return next((name for name, (low, high) in bands.items() if low <= age_years < high), UNKNOWN)


def credit_line(datasets: Iterable[str]) -> str:
    """Return the notices and credits that must be shown with images of these data sets.

    Parameters
    ----------
    datasets
        Names as in the column `dataset`; repeated and unknown ones are allowed.

    Returns
    -------
    str
        Joined by " · " in the order of `CREDITS`; "" where no data set asks for one.
    """
    present = set(datasets)
    return " · ".join(line for name, line in CREDITS.items() if name in present)


def in_order(names: Iterable[str]) -> list[str]:
    """Sort distinct emotion names as `EMOTIONS` does; raises ValueError for any other name."""
    unique = getattr(names, "unique", None)  # of a pandas column: much faster than a set
    return sorted(set(unique() if unique else names), key=EMOTIONS.index)
