"""The EXIF flag taken back: some cameras and editors write a turn that the pixels already have.

Orientation as in EXIF 2.32, tag 0x0112: 1 upright, 2 to 8 the turns and mirrorings that a viewer
has to apply to the stored pixels.
"""

from PIL import Image

Box = tuple[float, float, float, float]

# What undoes the turn of each orientation.
_BACK = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
_SWAPS_AXES = (5, 6, 7, 8)
_MIRRORS_X = (2, 3, 6, 7)  # after the swap, where there is one
_MIRRORS_Y = (3, 4, 7, 8)


def take_back(image: Image.Image, orientation: int) -> Image.Image:
    """Return the picture as its pixels are stored, from the one turned by its EXIF flag."""
    return image.transpose(_BACK[orientation]) if orientation in _BACK else image


def box_after_turn(box: Box, orientation: int, stored_size_px: tuple[int, int]) -> Box:
    """Move a box from the stored pixels to the picture turned by its EXIF flag.

    Parameters
    ----------
    box
        Left, top, right, bottom in pixels of the stored picture.
    orientation
        The EXIF flag, 1 to 8.
    stored_size_px
        Width and height of the stored picture.
    """
    left, top, right, bottom = box
    width, height = stored_size_px
    if orientation in _SWAPS_AXES:
        left, top, right, bottom = top, left, bottom, right
        width, height = height, width
    if orientation in _MIRRORS_X:
        left, right = width - right, width - left
    if orientation in _MIRRORS_Y:
        top, bottom = height - bottom, height - top
    return left, top, right, bottom
