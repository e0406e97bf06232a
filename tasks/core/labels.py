"""The vocabularies of emotions, genders and age bands, and the credits of the data sets."""

from collections.abc import Iterable, Mapping

# In the order of the columns `p_<emotion>`, and of every table and figure.
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
ALL = "all"  # in `groups.csv`: pooled over a dimension; as a protocol: every image
HELD_OUT = "held_out"  # protocol: images that the model was not trained on

DRAWN_DATASET = "drawn"
DRAWN_NOTICE = "drawn cohort: a demonstration, not evidence about children"

# Notices and credits that must accompany the images of a data set; others need none.
CREDITS: Mapping[str, str] = {
    DRAWN_DATASET: DRAWN_NOTICE,
    "london": "Face Research Lab London Set (DeBruine & Jones 2017), CC BY 4.0",
    "cafe": "CAFE (LoBue & Thrasher 2015): its pictures must not be published",
    "nimh-chefs": "NIMH-ChEFS (Egger et al. 2011): for research only",
}

# Words that data sets use for the labels above; adapters may add their codes.
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
    """Return the age band, of half-open intervals in years; "unknown" for no band or no age.

    A missing age is None or NaN.
    """
    if age_years is None or age_years != age_years:
        return UNKNOWN
    return next((name for name, (low, high) in bands.items() if low <= age_years < high), UNKNOWN)


def credit_line(datasets: Iterable[str]) -> str:
    """Return the notices and credits that must accompany images of these data sets, or ""."""
    present = set(datasets)
    return " · ".join(line for name, line in CREDITS.items() if name in present)


def in_order(names: Iterable[str]) -> list[str]:
    """Sort distinct emotion names in the order of `EMOTIONS`; raises ValueError for other names."""
    unique = getattr(names, "unique", None)  # of a pandas column: much faster than a set
    return sorted(set(unique() if unique else names), key=EMOTIONS.index)
