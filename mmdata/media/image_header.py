"""What an image's first bytes say of it, before anything is decoded."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from functools import cache

from mmdata.web.failures import FetchError

_ORIENTATION = 0x0112


@dataclass(frozen=True, slots=True)
class Header:
    """Format, size and whatever asks for care in decoding.

    Args:
        format: Pillow's name: JPEG, PNG, WEBP, GIF, BMP, TIFF, AVIF.
        width, height: in pixels, as stored.
        mode: Pillow's name of the kind of pixel.
        bits: of one channel; 8 but for some PNG and TIFF.
        orientation: EXIF's, 1 to 8; 1 is upright.
        has_key_colour: one colour of the palette stands for transparent.
    """

    format: str
    width: int
    height: int
    mode: str
    bits: int = 8
    orientation: int = 1
    has_key_colour: bool = False

    @property
    def pixels(self) -> int:
        return self.width * self.height

    @property
    def mime(self) -> str:
        return f"image/{self.format.lower()}"

    @property
    def is_turned(self) -> bool:
        return self.orientation != 1

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height as a viewer shows it."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)

    @property
    def is_rgb_jpeg(self) -> bool:
        return self.format == "JPEG" and self.mode in ("RGB", "L")

    @property
    def is_plain(self) -> bool:
        """Whether OpenCV decodes it as a viewer would: 8 bits, upright, no ink colours, no key colour."""
        return (
            self.format in ("JPEG", "PNG", "WEBP", "BMP")
            and self.mode in ("RGB", "RGBA", "L", "P")
            and self.bits <= 8
            and not self.is_turned
            and not self.has_key_colour
        )

    def reduction(self, image_size: int) -> int:
        """The largest of 1, 2, 4, 8 that, dividing the sides, leaves the shorter one at least `image_size`."""
        shorter = min(self.width, self.height)
        return next(factor for factor in (8, 4, 2, 1) if factor == 1 or shorter >= factor * image_size)


def read_header(body: bytes) -> Header:
    """Read an image's header. Raises FetchError `not_an_image`, or `bomb` where Pillow itself refuses the size."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(body), formats=formats()) as image:
            name = "JPEG" if image.format == "MPO" else str(image.format)  # MPO: a phone's, with more behind it
            return Header(
                name,
                image.width,
                image.height,
                image.mode,
                bits=body[24] if name == "PNG" else 8,  # IHDR: width, height, then the bit depth
                orientation=_orientation(image),
                has_key_colour="transparency" in image.info,
            )
    except Image.DecompressionBombError as error:
        raise FetchError("bomb", str(error)) from None
    except Exception as error:  # noqa: BLE001 - Pillow's parsers raise what they like on hostile bytes
        raise FetchError("not_an_image", f"starts with {body[:12]!r} ({type(error).__name__})") from None


@cache
def formats() -> tuple[str, ...]:
    """The formats that are read, of those that this Pillow knows; SVG, PSD, EPS and the like are no image to us."""
    import warnings

    from PIL import Image

    # Pillow warns of damaged files, which get their reason here, and of large ones, for which max_pixels is the rule
    warnings.filterwarnings("ignore", module=r"PIL\.")
    Image.init()
    return tuple(name for name in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF") if name in Image.OPEN)


def _orientation(image: object) -> int:
    """EXIF's orientation as far as the header has it; `getexif` would decode a whole PNG to look behind the pixels."""
    from PIL import Image

    raw = getattr(image, "info", {}).get("exif")
    if not raw:
        return 1
    exif = Image.Exif()
    try:
        exif.load(raw)
        value = exif.get(_ORIENTATION, 1)
    except (SyntaxError, struct.error, ValueError, KeyError, OSError, TypeError, IndexError):
        return 1  # a damaged EXIF block turns nothing
    return value if value in range(1, 9) else 1
