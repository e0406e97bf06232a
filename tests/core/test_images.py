"""Pictures that strangers give: each kind is read right or refused with a reason."""

import io
import os
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image, ImageDraw, features

from tasks.core.imaging.decode import MAX_SIDE_PX, BadImageError, decode, read_content, read_image
from tasks.core.imaging.formats import readable_formats
from tasks.core.parallel.limited_process import call_limited

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
    image = decode(saved(scene(), kind), LIMIT)
    assert image.rgb.shape == (24, 40, 3)
    assert image.rgb.dtype == np.uint8
    assert image.rgb[12, 5, 0] > 200 and image.rgb[12, 5, 2] < 60
    assert not image.exif_turned


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
def test_exif_flag_turns_the_image(
    flag: int, shape: tuple[int, int], red_at: tuple[int, int]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = flag
    image = decode(saved(scene(), "PNG", exif=exif), LIMIT)
    assert image.rgb.shape[:2] == shape
    assert tuple(image.rgb[red_at]) == (255, 0, 0)
    assert image.exif_turned == (flag != 1)


def test_torn_exif_beside_sound_pixels_is_no_fault() -> None:
    content = saved(scene(), "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + b"\xff" * 40)
    assert decode(content, LIMIT).rgb.shape == (24, 40, 3)


def test_cmyk_becomes_rgb() -> None:
    image = decode(saved(scene("CMYK"), "JPEG", quality=95), LIMIT)
    assert image.rgb[12, 5, 0] > 200 and image.rgb[12, 5, 2] < 60


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bit_gray_is_scaled_by_its_full_range(kind: str) -> None:
    ramp = np.array([[0, 257 * 100, 65535]] * 4, dtype=np.uint16)
    image = decode(saved(Image.fromarray(ramp), kind), LIMIT)
    assert image.rgb[0, :, 0].tolist() == [0, 100, 255]
    assert (image.rgb[:, :, 0] == image.rgb[:, :, 2]).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_parts_are_laid_on_white(mode: str) -> None:
    image = decode(saved(Image.new(mode, (8, 8), 0), "PNG"), LIMIT)
    assert (image.rgb == 255).all()


def test_palette_with_a_transparent_color_is_laid_on_white() -> None:
    image = Image.new("P", (8, 8), 0)
    image.putpalette([10, 20, 30] * 256)
    assert (decode(saved(image, "PNG", transparency=0), LIMIT).rgb == 255).all()


def test_main_image_of_a_cameras_multi_image_jpeg_is_read() -> None:
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
def test_animated_images_are_refused(kind: str) -> None:
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
            read_image(tmp_path / name, LIMIT)
        assert caught.value.reason == "unreadable"


def test_file_longer_than_its_pixels_can_be_is_not_read(tmp_path) -> None:
    path = tmp_path / "disk.jpg"
    with path.open("wb") as handle:
        handle.truncate(1 << 40)  # sparse: a terabyte that takes no room
    with pytest.raises(BadImageError) as caught:
        read_content(path, LIMIT)
    assert caught.value.reason == "too_large"


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_12_bits_in_16_are_scaled_by_their_range_and_said(kind: str) -> None:
    ramp = np.array([[0, 2048, 4095]] * 4, dtype=np.uint16)
    image = decode(saved(Image.fromarray(ramp), kind), LIMIT)
    assert image.rgb[0, :, 0].tolist() == [0, 127, 255]
    assert image.note == "12 bits in 16, scaled by 4095"
    assert decode(saved(Image.fromarray(ramp * 16), kind), LIMIT).note == ""


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def with_chunk(png: bytes, kind: bytes, body: bytes) -> bytes:
    """Add a chunk to a PNG, before its pixels."""
    at = png.index(b"IDAT") - 4
    return png[:at] + chunk(kind, body) + png[at:]


@pytest.mark.parametrize(
    ("bits", "values", "seen"),
    [
        (16, [0, 2048, 4095], [0, 7, 15]),  # dark, and by the file's word not shallow
        (10, [0, 512, 1023], [0, 127, 255]),
        (14, [0, 8192, 16383], [0, 127, 255]),
        (12, [0, 32768, 65535], [0, 127, 255]),  # scaled to 16 bits, as the specification has it
    ],
)
def test_bits_that_a_png_calls_significant_count(
    bits: int, values: list[int], seen: list[int]
) -> None:
    png = saved(Image.fromarray(np.array([values], dtype=np.uint16)), "PNG")
    image = decode(with_chunk(png, b"sBIT", bytes([bits])), LIMIT)
    assert image.rgb[0, :, 0].tolist() == seen
    assert bool(image.note) == (0 < bits < 16 and max(values) < 65535)


def test_a_pgm_says_its_largest_value_itself() -> None:
    dark = b"P5 2 1 4095\n" + struct.pack(">HH", 40, 80)
    assert decode(dark, LIMIT).rgb[0, :, 0].tolist() == [2, 4] and not decode(dark, LIMIT).note
    full = b"P5 2 1 65535\n" + struct.pack(">HH", 0, 4095)
    assert decode(full, LIMIT).rgb[0, :, 0].tolist() == [0, 255] and decode(full, LIMIT).note


def test_a_color_image_of_12_bits_in_16_is_not_read_as_black() -> None:
    pixels = struct.pack(">HHH", 4095, 2000, 0) * 4
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 1, 16, 2, 0, 0, 0))
    png = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" + pixels))
    assert reason_of(png + chunk(b"IEND", b"")) == "unsupported"
    bright = chunk(b"IDAT", zlib.compress(b"\0" + struct.pack(">HHH", 65535, 0, 0) * 4))
    image = decode(b"\x89PNG\r\n\x1a\n" + head + bright + chunk(b"IEND", b""), LIMIT)
    assert image.rgb[0, 0].tolist() == [255, 0, 0]


LONG = bytes(3 << 20)
TEXTS = {
    b"iCCP": b"name\0\0" + zlib.compress(LONG),
    b"zTXt": b"note\0\0" + zlib.compress(LONG),
    b"iTXt": b"note\0\1\0\0\0" + zlib.compress(LONG),
    b"tEXt": b"transparency\0of no meaning",
}


@pytest.mark.parametrize("kind", TEXTS)
def test_profiles_and_texts_of_any_length_are_no_damage(kind: bytes) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    png = with_chunk(saved(scene(), "PNG", exif=exif), kind, TEXTS[kind])
    image = decode(png, LIMIT)
    assert image.rgb.shape == (40, 24, 3) and image.exif_orientation == 6
    late = png[: png.index(b"IEND") - 4] + chunk(kind, TEXTS[kind]) + chunk(b"IEND", b"")
    assert decode(late, LIMIT).rgb.shape == (40, 24, 3)
    assert reason_of(png[:-60]) == "damaged"


def test_a_flag_in_a_text_beside_a_long_profile_counts() -> None:
    text = b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>'
    png = with_chunk(with_chunk(saved(scene(), "PNG"), b"iTXt", text), b"iCCP", TEXTS[b"iCCP"])
    assert decode(png, LIMIT).exif_orientation == 6


def iso_media(*brands: bytes) -> bytes:
    """Return the head of a file of the ISO base media format, without anything behind it."""
    body = brands[0] + bytes(4) + b"".join(brands[1:])
    return struct.pack(">I", len(body) + 8) + b"ftyp" + body + bytes(40)


def detail_of(content: bytes) -> str:
    with pytest.raises(BadImageError) as caught:
        decode(content, LIMIT)
    return f"{caught.value.reason}: {caught.value.detail}"


@pytest.fixture
def formats(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Choose which optional formats there are."""
    readable_formats.cache_clear()
    yield
    monkeypatch.undo()
    readable_formats.cache_clear()


@pytest.mark.usefixtures("formats")
def test_heic_and_avif_are_named_by_their_content(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setattr(features, "check", lambda name: False)
    for brands in ((b"heic", b"mif1", b"heic"), (b"mif1", b"heic")):
        told = detail_of(iso_media(*brands))
        assert told.startswith("unsupported: a HEIC picture") and "affectgap[heic]" in told
    for brands in ((b"avif",), (b"mif1", b"miaf", b"avif")):
        assert detail_of(iso_media(*brands)).startswith("unsupported: an AVIF picture")
    assert detail_of(iso_media(b"isom", b"mp42")).startswith("not_an_image")


@pytest.mark.usefixtures("formats")
def test_heic_is_read_by_the_optional_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(handle: io.BytesIO, name: str) -> Image.Image:
        handle.seek(0)
        if handle.read().endswith(b"torn"):
            raise SyntaxError("torn")
        image = scene()
        image.format, image.is_animated = "HEIF", True  # a preview is its second frame
        return image

    stub = ModuleType("pillow_heif")
    stub.register_heif_opener = lambda: Image.register_open(
        "HEIF", opened, lambda head: head[4:12] == b"ftypheic"
    )
    monkeypatch.setitem(sys.modules, "pillow_heif", stub)
    monkeypatch.setattr(Image, "OPEN", dict(Image.OPEN))
    assert decode(iso_media(b"heic"), LIMIT).rgb.shape == (24, 40, 3)
    assert reason_of(iso_media(b"heic") + b"torn") == "damaged"


def test_heic_is_read() -> None:
    heif = pytest.importorskip("pillow_heif")
    buffer = io.BytesIO()
    heif.from_pillow(scene()).save(buffer, quality=90)
    assert decode(buffer.getvalue(), LIMIT).rgb.shape == (24, 40, 3)


@pytest.mark.skipif(not features.check("avif"), reason="Pillow is built without AVIF")
def test_avif_is_read() -> None:
    image = decode(saved(scene(), "AVIF", quality=90), LIMIT)
    assert image.rgb.shape == (24, 40, 3) and image.rgb[12, 5, 0] > 200
    assert reason_of(iso_media(b"avif")) == "damaged"


def progressive_jpeg(scans: int) -> bytes:
    """Return a JPEG of 49 MP that goes over its pixels so often: some kilobytes, some minutes."""
    whole = saved(Image.new("L", (64, 64)), "JPEG", progressive=True)
    size = whole.index(b"\xff\xc2") + 5
    whole = whole[:size] + struct.pack(">HH", 7000, 7000) + whole[size + 4 :]
    last = whole[whole.rindex(b"\xff\xda") : -2]
    return whole[:-2] + last * scans + b"\xff\xd9"


def baseline_jpeg(scans: int) -> bytes:
    """Return a JPEG of three components, each of which has so many scans of its own."""
    whole = saved(Image.new("RGB", (64, 64)), "JPEG")
    size = whole.index(b"\xff\xc0") + 5
    whole = whole[:size] + struct.pack(">HH", 4000, 4000) + whole[size + 4 :]
    head = whole[: whole.index(b"\xff\xda")]
    scan = b"\xff\xda\0\x08\1\1\0\0\x3f\0" + bytes(4)
    return head + scan * scans + b"\xff\xd9"


def tiff(tags: dict[int, int], data: bytes) -> bytes:
    """Return a TIFF with these tags, and its pixels at byte 8."""
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, tags[tag]) for tag in sorted(tags))
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory


def tiff_of_one_tile(side_px: int) -> bytes:
    data = zlib.compress(bytes(side_px * side_px), 1)
    tags = {256: 16, 257: 16, 258: 8, 259: 8, 262: 1, 277: 1, 322: side_px, 323: side_px}
    return tiff(tags | {324: 8, 325: len(data)}, data)


def tiff_of_many_directories(count: int) -> bytes:
    tags = {256: 1, 257: 1, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: 1}
    one = tiff(tags, b"\x80")[9:-4]
    links = (9 + (len(one) + 4) * number for number in range(1, count))
    chain = b"".join(one + struct.pack("<I", link) for link in links)
    return b"II*\0" + struct.pack("<I", 9) + b"\x80" + chain + one + bytes(4)


def rle_bmp(width: int, height: int) -> bytes:
    """Return a BMP with four bytes a line, which Pillow fills up a pixel at a time."""
    data = b"\1\0\0\0" * height + b"\0\1"
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(data), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 1078 + len(data), 0, 0, 1078) + head + bytes(1024) + data


def exif_segments(count: int) -> bytes:
    return b"\xff\xd8" + (b"\xff\xe1\xff\xffExif\0\0" + bytes(65527)) * count


BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "scans of a JPEG": (
        lambda: progressive_jpeg(3000),
        "too_large: a JPEG with more than 64 scans",
    ),
    "scans of a baseline JPEG": (lambda: baseline_jpeg(3000), "a JPEG with more than 64 scans"),
    "EXIF of a JPEG": (lambda: exif_segments(300), "too_large: a JPEG with more than 16 MB"),
    "segments of a JPEG": (lambda: b"\xff\xd8" + b"\xff\xfe\0\2" * 99_999, "10,000 segments"),
    "directories of a TIFF": (lambda: tiff_of_many_directories(40_000), "animated: several"),
    "a tile of a TIFF": (lambda: tiff_of_one_tile(8_000), "too_large: a tile of 8000 x 8000"),
    "lines of a BMP": (lambda: rle_bmp(16_000, 3_600), "too_large: a compressed BMP"),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_costs_little_time_and_memory(tmp_path: Path, bomb: str) -> None:
    content, said = BOMBS[bomb]
    (tmp_path / "a").write_bytes(content())
    told = call_limited(
        "tests.decode_limited:decode", str(tmp_path / "a"), seconds=20, memory_mb=1_000
    )
    assert said in told


def test_what_only_looks_like_a_bomb_is_read() -> None:
    jpeg = saved(scene(), "JPEG", progressive=True)
    preview = b"\xff\xe1" + struct.pack(">H", 2 + 200 * 2) + b"\xff\xda" * 200
    assert decode(jpeg[:2] + preview + jpeg[2:], LIMIT).rgb.shape == (24, 40, 3)
    assert decode(jpeg + b"\xff\xda" * 200, LIMIT).rgb.shape == (24, 40, 3)
    assert decode(rle_bmp(40, 24), LIMIT).rgb.shape == (24, 40, 3)
    assert decode(tiff_of_one_tile(256), 16 * 16).rgb.shape == (16, 16, 3)
