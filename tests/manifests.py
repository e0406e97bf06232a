"""A manifest that passes every check, and the params that it is checked with."""

import hashlib

import pandas as pd

from tasks.check.settings import Params
from tasks.core.tables import MANIFEST_SCHEMA

BANDS = {"adult": 30.0, "child": 6.0}
SETTINGS = {
    "emotions": ["anger", "happiness"],
    "age_bands": ["child", "adult"],
    "age_years": [0, 110],
    "max_age_span_years": 3,
    "min_side_px": 48,
    "max_quarantined_share": 0.9,
    "min_rows": 10,
    "group_by": ["age_band", "emotion"],
    "min_per_group": 4,
    "min_subjects_per_group": 3,
    "max_label_share": 0.7,
    "required_columns": ["age_band", "gender"],
}


def params_with(**changes: object) -> Params:
    return Params.model_validate(SETTINGS | changes)


def good_manifest(subjects_a_band: int = 6) -> pd.DataFrame:
    rows = []
    for band, age in BANDS.items():
        for subject in range(subjects_a_band):
            for emotion in SETTINGS["emotions"]:
                sha256 = hashlib.sha256(f"{band} {subject} {emotion}".encode()).hexdigest()
                rows.append(
                    {
                        "image_id": sha256[:16],
                        "path": f"set/{band}{subject} {emotion} 얼굴.png",
                        "dataset": "set",
                        "batch": "",
                        "subject_id": f"set/{band}{subject}",
                        "subject_known": True,
                        "emotion": emotion,
                        "emotion_raw": emotion,
                        "age_years": age,
                        "age_band": band,
                        "age_source": "recorded",
                        "gender": "female" if subject % 2 else "male",
                        "width_px": 64,
                        "height_px": 80,
                        "sha256": sha256,
                    }
                )
    table = pd.DataFrame(rows).reindex(columns=MANIFEST_SCHEMA.names)
    optional = ["ethnicity", "gaze", "mouth", "pose"]
    return table.astype(dict.fromkeys(optional, "str"))
