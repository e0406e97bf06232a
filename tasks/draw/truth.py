"""The table of what the drawing knows of each picture."""

from collections.abc import Sequence

import pandas as pd
import pyarrow as pa

from tasks.core.shards import Place
from tasks.draw.facs import UNITS
from tasks.draw.picture import Drawn

TRUTH_SCHEMA = pa.schema(
    [
        ("image", pa.string()),  # file name below data/raw/drawn
        ("subject", pa.string()),
        ("cohort", pa.string()),
        ("age_years", pa.int64()),
        ("gender", pa.string()),  # as recorded
        ("emotion", pa.string()),
        ("take", pa.int64()),
        *((f"au_{unit:02d}", pa.float64()) for unit in UNITS),  # intensity, 0 (rest) to 1
        ("moved", pa.list_(pa.string())),  # regions that moved, compared with the face at rest
        ("landmarks_xy_px", pa.list_(pa.float64())),  # 68 pairs of x and y, as iBUG numbers them
        ("shard", pa.string()),  # where the mask `<image's stem>.png` is, below data/truth/masks
        ("offset_bytes", pa.int64()),
        ("size_bytes", pa.int64()),
    ]
)


def truth_table(drawn: Sequence[tuple[Drawn, Place]]) -> pd.DataFrame:
    """Make the table, one row a picture, from what was drawn and where its mask went.

    The pictures' bytes are not looked at, so they may have been dropped.
    """
    rows = [_row(picture, place) for picture, place in drawn]
    return pd.DataFrame(rows, columns=TRUTH_SCHEMA.names)


def _row(picture: Drawn, place: Place) -> dict[str, object]:
    name = picture.sitting.name
    return {
        "image": name.file_name,
        "subject": name.subject,
        "cohort": picture.sitting.cohort,
        "age_years": name.age_years,
        "gender": name.gender,
        "emotion": name.emotion,
        "take": name.take,
        **{f"au_{unit:02d}": picture.units.get(unit, 0.0) for unit in UNITS},
        "moved": list(picture.moved),
        "landmarks_xy_px": picture.landmarks_px.round(2).ravel().tolist(),
        "shard": place.shard,
        "offset_bytes": place.offset_bytes,
        "size_bytes": place.size_bytes,
    }
