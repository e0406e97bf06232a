"""Taking back an EXIF turn undoes it exactly, and boxes follow."""

import io

import numpy as np
import pytest
from PIL import Image

from tasks.core.imaging.decode import decode
from tasks.crop.face_detector import box_in_oriented_image, undo_exif_orientation


@pytest.mark.parametrize("orientation", range(1, 9))
def test_taking_back_undoes_what_decoding_did_and_boxes_follow(orientation):
    stored = np.zeros((30, 50, 3), dtype=np.uint8)
    stored[4:11, 20:41] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(stored).save(buffer, "PNG", exif=exif)
    turned = decode(buffer.getvalue(), 10_000)
    assert turned.exif_orientation == orientation
    back = undo_exif_orientation(Image.fromarray(turned.rgb), orientation)
    assert np.array_equal(np.asarray(back), stored)
    left, top, right, bottom = box_in_oriented_image((20, 4, 41, 11), orientation, (50, 30))
    rows, columns = np.nonzero(turned.rgb[:, :, 0])
    assert (left, top, right, bottom) == (
        columns.min(),
        rows.min(),
        columns.max() + 1,
        rows.max() + 1,
    )
