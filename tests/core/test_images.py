"""Pictures that strangers give: each kind is read right or refused with a reason."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tasks.core.images import MAX_SIDE_PX, BadImageError, decode, read_content, read_picture

LIMIT = 60_000_000


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def scene(mode: str = "RGB") -> Image.Image:
    """40 × 24 px: red in the left half, blue in the right half."""
    image = Image.new("RGB", (40, 24), (0, 0, 255))
    ImageDraw.Draw(image).rectangle((0, 0, 19, 23), fill=(255, 0, 0))
    return image.convert(mode)


def png_header(width: int, height: int) -> bytes:
    """Return a PNG of a few bytes that says it is `width` × `height`, with a right checksum."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(64)))
    return b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b"")


def reason_of(content: bytes, max_pixels: int = LIMIT) -> str:
    with pytest.raises(BadImageError) as caught:
        decode(content, max_pixels)
    assert "\n" not in caught.value.detail
    return caught.value.reason


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "BMP", "WEBP", "GIF", "PPM"])
def test_every_format_is_read(kind: str) -> None:
    picture = decode(saved(scene(), kind), LIMIT)
    assert picture.rgb.shape == (24, 40, 3)
    assert picture.rgb.dtype == np.uint8
    assert picture.rgb[12, 5, 0] > 200 and picture.rgb[12, 5, 2] < 60
    assert not picture.exif_turned


@pytest.mark.parametrize(
    ("flag", "shape", "red_at"),
    [
        (1, (24, 40), (12, 5)),
        (2, (24, 40), (12, 35)),
        (3, (24, 40), (12, 35)),
        (4, (24, 40), (12, 5)),
        (5, (40, 24), (5, 12)),
        (6, (40, 24), (5, 12)),
        (7, (40, 24), (35, 12)),
        (8, (40, 24), (35, 12)),
    ],
)
def test_exif_flag_turns_the_picture(
    flag: int, shape: tuple[int, int], red_at: tuple[int, int]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = flag
    picture = decode(saved(scene(), "PNG", exif=exif), LIMIT)
    assert picture.rgb.shape[:2] == shape
    assert tuple(picture.rgb[red_at]) == (255, 0, 0)
    assert picture.exif_turned == (flag != 1)


def test_torn_exif_beside_sound_pixels_is_no_fault() -> None:
    content = saved(scene(), "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + b"\xff" * 40)
    assert decode(content, LIMIT).rgb.shape == (24, 40, 3)


def test_cmyk_becomes_rgb() -> None:
    picture = decode(saved(scene("CMYK"), "JPEG", quality=95), LIMIT)
    assert picture.rgb[12, 5, 0] > 200 and picture.rgb[12, 5, 2] < 60


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_is_scaled_by_its_full_range(kind: str) -> None:
    ramp = np.array([[0, 257 * 100, 65535]] * 4, dtype=np.uint16)
    picture = decode(saved(Image.fromarray(ramp), kind), LIMIT)
    assert picture.rgb[0, :, 0].tolist() == [0, 100, 255]
    assert (picture.rgb[:, :, 0] == picture.rgb[:, :, 2]).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_parts_are_laid_on_white(mode: str) -> None:
    picture = decode(saved(Image.new(mode, (8, 8), 0), "PNG"), LIMIT)
    assert (picture.rgb == 255).all()


def test_palette_with_a_transparent_colour_is_laid_on_white() -> None:
    image = Image.new("P", (8, 8), 0)
    image.putpalette([10, 20, 30] * 256)
    assert (decode(saved(image, "PNG", transparency=0), LIMIT).rgb == 255).all()


def test_main_picture_of_a_cameras_multi_picture_jpeg_is_read() -> None:
    content = saved(scene(), "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))])
    assert decode(content, LIMIT).rgb.shape == (24, 40, 3)


def noisy_jpeg() -> bytes:
    noise = np.random.default_rng(1).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    return saved(Image.fromarray(noise), "JPEG")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"a letter, not a picture\n" * 20, "not_an_image"),
        (b"\x00" * 217, "not_an_image"),
        (noisy_jpeg()[:1500], "damaged"),
        (noisy_jpeg()[:12], "damaged"),
        (saved(scene(), "PNG")[:60], "damaged"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "damaged"),
        (png_header(2000, 2000), "damaged"),
        (png_header(20_000, 20_000), "too_large"),
        (png_header(20_000, 200), "too_large"),
        (png_header(2**31 - 1, 2**31 - 1), "too_large"),
        (saved(scene("L").convert("F"), "TIFF"), "unsupported"),
        (saved(scene("L").convert("I"), "TIFF"), "unsupported"),
    ],
)
def test_bad_content_is_refused_with_a_reason(content: bytes, reason: str) -> None:
    assert reason_of(content) == reason


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animated_pictures_are_refused(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), (step * 80, 0, 0)) for step in range(3)]
    assert reason_of(saved(frames[0], kind, save_all=True, append_images=frames[1:])) == "animated"


def test_size_is_judged_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    content = saved(Image.new("RGB", (300, 200)), "PNG")
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("pixels were decoded"))
    assert reason_of(content, max_pixels=59_999) == "too_large"


def test_size_limit_keeps_what_is_just_inside() -> None:
    content = saved(Image.new("RGB", (300, 200)), "PNG")
    assert decode(content, 60_000).rgb.shape == (200, 300, 3)
    wide = saved(Image.new("L", (MAX_SIDE_PX, 1)), "PNG")
    assert decode(wide, LIMIT).rgb.shape == (1, MAX_SIDE_PX, 3)


@pytest.mark.parametrize("seed", range(12))
def test_overwritten_bytes_never_escape_as_another_error(seed: int) -> None:
    generator = np.random.default_rng(seed)
    kind = ["JPEG", "PNG", "TIFF", "GIF", "WEBP", "BMP"][seed % 6]
    sound = bytearray(saved(scene(), kind))
    for _ in range(40):
        content = bytearray(sound)
        for at in generator.integers(2, len(content), 12):
            content[at] = int(generator.integers(0, 256))
        try:
            assert decode(bytes(content), LIMIT).rgb.shape[2] == 3
        except BadImageError as error:
            assert error.reason and error.detail


def test_missing_file_and_pipe_are_unreadable(tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    for name in ("absent.jpg", "pipe.jpg"):
        with pytest.raises(BadImageError) as caught:
            read_picture(tmp_path / name, LIMIT)
        assert caught.value.reason == "unreadable"


def test_file_longer_than_its_pixels_can_be_is_not_read(tmp_path) -> None:
    path = tmp_path / "disk.jpg"
    with path.open("wb") as handle:
        handle.truncate(1 << 40)  # sparse: a terabyte that takes no room
    with pytest.raises(BadImageError) as caught:
        read_content(path, LIMIT)
    assert caught.value.reason == "too_large"
