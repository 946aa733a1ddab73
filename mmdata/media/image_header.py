"""Reads an image's header: format, size and special properties. Nothing is decoded. Used by `download.images`."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from functools import cache

from mmdata.web.failures import FetchError

_EXIF_ORIENTATION = 0x0112


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """Format, size, and what must be respected when the image is decoded.

    Args:
        format: Pillow's name: JPEG, PNG, WEBP, GIF, BMP, TIFF, AVIF.
        width, height: in pixels, as stored.
        mode: Pillow's name of the pixel format.
        bits: of one channel; 8 except in some PNG.
        orientation: by EXIF, 1 to 8; 1 is upright.
        has_key_colour: one colour means transparent.
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
        """Width and height as a viewer shows the image."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)

    @property
    def is_rgb_jpeg(self) -> bool:
        return self.format == "JPEG" and self.mode in ("RGB", "L")

    @property
    def is_plain(self) -> bool:
        """Whether OpenCV decodes it as viewers do: 8 bits, upright, no CMYK, no key colour."""
        return (
            self.format in ("JPEG", "PNG", "WEBP", "BMP")
            and self.mode in ("RGB", "RGBA", "L", "P")
            and self.bits <= 8
            and not self.is_turned
            and not self.has_key_colour
        )

    def reduction(self, image_size: int) -> int:
        """The largest of 1, 2, 4 and 8 by which the sides can be divided so that the shorter keeps `image_size`."""
        shorter = min(self.width, self.height)
        return next(factor for factor in (8, 4, 2, 1) if factor == 1 or shorter >= factor * image_size)


def read_header(body: bytes) -> ImageHeader:
    """Read an image's header. Raises FetchError `not_an_image`, or `bomb` if Pillow itself refuses the size."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(body), formats=readable_formats()) as image:
            # MPO is the format of phones: a JPEG that is followed by further images
            name = "JPEG" if image.format == "MPO" else str(image.format)
            return ImageHeader(
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
    except Exception as error:  # noqa: BLE001 - Pillow's parsers raise anything on hostile bytes
        raise FetchError("not_an_image", f"starts with {body[:12]!r} ({type(error).__name__})") from None


@cache
def readable_formats() -> tuple[str, ...]:
    """The formats that are accepted, as far as this Pillow supports them; SVG, PSD, EPS and others are not."""
    import warnings

    from PIL import Image

    # Pillow warns of damaged files, which become failures here, and of large ones, which max_pixels limits
    warnings.filterwarnings("ignore", module=r"PIL\.")
    Image.init()
    return tuple(name for name in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF") if name in Image.OPEN)


def _orientation(image: object) -> int:
    """EXIF's orientation if it stands in the header. `getexif` would decode a whole PNG to look behind its pixels."""
    from PIL import Image

    exif_bytes = getattr(image, "info", {}).get("exif")
    if not exif_bytes:
        return 1
    exif = Image.Exif()
    try:
        exif.load(exif_bytes)
        value = exif.get(_EXIF_ORIENTATION, 1)
    except (SyntaxError, struct.error, ValueError, KeyError, OSError, TypeError, IndexError):
        return 1  # a damaged EXIF block rotates nothing
    return value if value in range(1, 9) else 1
