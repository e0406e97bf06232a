"""The formats that pictures may come in, and the names of some that are not read everywhere."""

from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

from PIL import features

# The formats that face data sets come in; anything else is refused by name.
FORMATS: tuple[str, ...] = ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "GIF", "PPM")

_HEIF_PACKAGE = "pillow-heif"
_HEIF_MODULE = "pillow_heif"
_HEIC_BRANDS = frozenset([b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"])
_AVIF_BRANDS = frozenset([b"avif", b"avis"])
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"RIFF")


@cache
def readable_formats() -> tuple[str, ...]:
    """Return the formats that are read here: AVIF where Pillow has it, HEIC with its package."""
    formats = FORMATS
    if features.check("avif"):
        formats = (*formats, "AVIF")
    try:
        import_module(_HEIF_MODULE).register_heif_opener()
    except ImportError:
        return formats
    return (*formats, "HEIF")


def optional_readers() -> str:
    """Name what decides which formats are read, for keys of cached results."""
    try:
        heif = version(_HEIF_PACKAGE)
    except PackageNotFoundError:
        heif = "none"
    return f"{_HEIF_PACKAGE} {heif}, avif {features.check('avif')}"


def looks_like_a_picture(content: bytes) -> bool:
    """Whether a file begins as those of the formats that are read here do."""
    return content.startswith(_SIGNATURES) or _iso_format(content) in readable_formats()


def unreadable_kind(content: bytes) -> str:
    """Return what a picture is that cannot be read here, and what to do; "" for any other file."""
    kind = _iso_format(content)
    if kind == "AVIF":
        return "an AVIF picture, whatever its suffix; convert it to JPEG or PNG"
    if kind == "HEIF":
        return (
            "a HEIC picture, whatever its suffix; convert it to JPEG (`heif-convert a.heic a.jpg`; "
            "iPhone: Settings, Camera, Formats, Most Compatible), or install affectgap[heic]"
        )
    return ""


def _iso_format(content: bytes) -> str:
    """Return Pillow's name of a format by its brands, which the box `ftyp` lists; "" for others."""
    if content[4:8] != b"ftyp":
        return ""
    end = min(int.from_bytes(content[:4], "big"), 256)
    listed = content[16:end]
    brands = {content[8:12], *(listed[at : at + 4] for at in range(0, len(listed), 4))}
    return "AVIF" if brands & _AVIF_BRANDS else "HEIF" if brands & _HEIC_BRANDS else ""
