"""Draws images with the detector's box beside the crops made from them.

The sheet is for a quick check by eye. It shows images from the whole table, those that the detector
was least sure of, and some in which it found nothing.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont, ImageOps

from tasks.core.imaging.decode import decode_image, read_content
from tasks.core.imaging.shards import read_crops
from tasks.core.labels import UNKNOWN, credit_line
from tasks.core.paths import Paths
from tasks.crop.crops_table import miss_counts

_SAMPLES = 12
_LEAST_SURE = 4
_FACELESS = 2
_COLUMNS = 4
_TILE_PX = 200
_GAP_PX = 4
_TEXT_PX = 46  # two lines below a pair
_PAIR_PX = 2 * _TILE_PX + _GAP_PX
_MARGIN_PX = 24
_WIDTH_PX = _COLUMNS * (_PAIR_PX + _MARGIN_PX) + _MARGIN_PX

_INK = "#1c2430"
_SOFT_INK = "#5a6573"
_PAPER = "#ffffff"
_BOX = "#ffb000"
_EMPTY = "#eceff3"


@dataclass(frozen=True)
class _Pair:
    image: Image.Image  # _TILE_PX square, with the box
    crop: Image.Image | None
    label: str
    note: str


def draw_contact_sheet(
    crops: pd.DataFrame, faceless: pd.DataFrame, groups: pd.DataFrame, paths: Paths
) -> np.ndarray:
    """Draw the contact sheet as `(H, W, 3)` uint8 RGB.

    Its width is fixed; its height follows from the content. `crops` holds rows of the crops table,
    `faceless` rows of the checked table, and `groups` is from `miss_rates_by_group`.
    """
    missed = _spread(faceless, _FACELESS)
    keys = crops[["detector_score", "age_band", "gender", "emotion", "image_id"]]  # copied, small
    by_score = keys.sort_values(["detector_score", "image_id"])
    unsure = crops.loc[by_score.index[:_LEAST_SURE]]
    sure = by_score.iloc[_LEAST_SURE:].sort_values(["age_band", "gender", "emotion", "image_id"])
    typical = crops.loc[_spread(sure, _SAMPLES - len(missed) - len(unsure)).index]
    pairs = [*_with_crops(typical, paths, ""), *_with_crops(unsure, paths, "least sure, ")]
    pairs += [_faceless(row, paths) for _, row in missed.iterrows()]
    datasets = {*typical["dataset"], *unsure["dataset"], *missed["dataset"]}
    return np.asarray(_lay_out(pairs, _caption(groups), credit_line(datasets)))


def _spread(table: pd.DataFrame, n: int) -> pd.DataFrame:
    """Choose up to n evenly spaced rows."""
    return table.iloc[np.unique(np.linspace(0, len(table) - 1, min(n, len(table))).astype(int))]


def _with_crops(table: pd.DataFrame, paths: Paths, prefix: str) -> list[_Pair]:
    pairs = []
    for (_, row), crop in zip(table.iterrows(), read_crops(table, paths.crop_shards), strict=True):
        faces = "1 face" if row["n_faces"] == 1 else f"{row['n_faces']} faces"
        tile = Image.fromarray(crop).resize((_TILE_PX, _TILE_PX), Image.Resampling.LANCZOS)
        note = f"{prefix}score {row['detector_score']:.2f}, {faces}"
        pairs.append(_Pair(_image(row, paths, row["box_xyxy_px"]), tile, _label(row), note))
    return pairs


def _faceless(row: pd.Series, paths: Paths) -> _Pair:
    return _Pair(_image(row, paths, None), None, _label(row), "left out, in rejects/crop.csv")


def _label(row: pd.Series) -> str:
    values = [row[column] for column in ("age_band", "gender", "emotion")]
    return ", ".join(value for value in values if isinstance(value, str) and value != UNKNOWN)


def _image(row: pd.Series, paths: Paths, box: object) -> Image.Image:
    limit = int(row["width_px"]) * int(row["height_px"])
    image = decode_image(read_content(paths.raw / row["path"], limit), limit).image
    tile = ImageOps.pad(image, (_TILE_PX, _TILE_PX), Image.Resampling.BOX, color=_EMPTY)
    if box is not None:
        scale = _TILE_PX / max(image.size)
        left = (_TILE_PX - image.width * scale) / 2
        top = (_TILE_PX - image.height * scale) / 2
        x0, y0, x1, y1 = (float(edge) * scale for edge in np.asarray(box))
        corners = (left + x0, top + y0, left + x1, top + y1)
        ImageDraw.Draw(tile).rectangle(corners, outline=_BOX, width=3)
    return tile


def _caption(groups: pd.DataFrame) -> list[str]:
    """Return the miss counts of every group, wrapped to the sheet's width."""
    font = _font(17)
    counts = miss_counts(groups)
    lines = ["No face found, by age band and gender as recorded by the data set:"]
    lines[0] += f" {counts[0]}" if counts else " no pictures"
    for text in counts[1:]:
        extended = f"{lines[-1]}, {text}"
        if font.getlength(extended) < _WIDTH_PX - 2 * _MARGIN_PX - 20:
            lines[-1] = extended
        else:
            lines[-1] += ","
            lines.append(text)
    return lines


def _lay_out(pairs: list[_Pair], caption: list[str], credit: str) -> Image.Image:
    rows = -(-len(pairs) // _COLUMNS)
    row_px = _TILE_PX + _TEXT_PX + 18
    footer = [*caption, *([credit] if credit else [])]
    head_px = 92
    sheet = Image.new("RGB", (_WIDTH_PX, head_px + rows * row_px + len(footer) * 26 + 20), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN_PX, 20), "Detected faces and their crops", _INK, _font(28))
    about = "Left: the picture with the detector's tight box. Right: the crop that the models see."
    draw.text((_MARGIN_PX, 57), about, _SOFT_INK, _font(17))
    for index, pair in enumerate(pairs):
        x = _MARGIN_PX + index % _COLUMNS * (_PAIR_PX + _MARGIN_PX)
        _draw_pair(sheet, pair, x, head_px + index // _COLUMNS * row_px)
    for index, line in enumerate(footer):
        ink = _INK if line == credit else _SOFT_INK
        draw.text((_MARGIN_PX, head_px + rows * row_px + index * 26), line, ink, _font(17))
    return sheet


def _draw_pair(sheet: Image.Image, pair: _Pair, x: int, y: int) -> None:
    draw = ImageDraw.Draw(sheet)
    sheet.paste(pair.image, (x, y))
    right = x + _TILE_PX + _GAP_PX
    if pair.crop is None:
        draw.rectangle((right, y, right + _TILE_PX - 1, y + _TILE_PX - 1), fill=_EMPTY)
        middle = (right + _TILE_PX // 2, y + _TILE_PX // 2)
        draw.text(middle, "no face found", _SOFT_INK, _font(18), anchor="mm")
    else:
        sheet.paste(pair.crop, (right, y))
    draw.text((x, y + _TILE_PX + 5), pair.label, _INK, _font(16))
    draw.text((x, y + _TILE_PX + 25), pair.note, _SOFT_INK, _font(15))


def _font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size_px)
