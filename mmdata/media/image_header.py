"""Reads an image's header: format, size and special properties. Nothing is decoded. Used by `download.images`.

The time is bounded by the size of the file, whatever a stranger puts into it; only a TIFF's tables are not.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache
from typing import Any

from mmdata.media.colour_profile import profile_to_apply
from mmdata.media.gif_frame import first_frame
from mmdata.media.jpeg_markers import NO_JPEG, JpegFacts, jpeg_facts
from mmdata.media.png_chunks import SIGNATURE, lean_png
from mmdata.web.failures import FetchError

TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_EXIF_ORIENTATION = 0x0112
_COPIES = 3  # of the pixels, which a decode holds at once: as decoded, as blended on white, and as encoded for resizing


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """Format, size, and what must be respected when the image is decoded.

    Args:
        format: Pillow's name: JPEG, PNG, WEBP, GIF, BMP, TIFF, AVIF.
        width, height: in pixels, as stored.
        mode: Pillow's name of the pixel format.
        bits: of one channel; 8 except in some PNG.
        orientation: by EXIF, or by XMP if there is no EXIF, 1 to 8; 1 is upright.
        has_key_colour: one colour means transparent.
        has_frames: it is an animation.
        profile: the ICC profile to convert the colours by; None if they are those of sRGB.
        jpeg: what the markers of a JPEG say.
    """

    format: str
    width: int
    height: int
    mode: str
    bits: int = 8
    orientation: int = 1
    has_key_colour: bool = False
    has_frames: bool = False
    profile: bytes | None = None
    jpeg: JpegFacts = NO_JPEG

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
        """Whether OpenCV decodes it as viewers do: 8 bits, upright, no CMYK, no key colour, no profile, no film."""
        return (
            self.format in ("JPEG", "PNG", "WEBP", "BMP")
            and self.mode in ("RGB", "RGBA", "L", "P")
            and self.bits <= 8
            and not self.is_turned
            and not self.has_key_colour
            and not self.has_frames
            and self.profile is None
        )

    @property
    def passes(self) -> int:
        """Pixels times the passes over them; the time of a decode grows with it."""
        return self.pixels * max(1, self.jpeg.scans)

    def decode_bytes(self, image_size: int) -> int:
        """An upper bound of the memory in bytes that decoding takes: pixels x bytes of a pixel x copies."""
        reduction = self.reduction(image_size) if self.is_rgb_jpeg else 1
        coefficients = self.pixels * 6 if self.jpeg.has_many_scans else 0  # libjpeg keeps 16 bits of all three channels
        return self.pixels // reduction**2 * 4 * _COPIES + coefficients

    def reduction(self, image_size: int) -> int:
        """The largest of 1, 2, 4 and 8 by which the sides can be divided so that the shorter keeps `image_size`."""
        shorter = min(self.width, self.height)
        return next(factor for factor in (8, 4, 2, 1) if factor == 1 or shorter >= factor * image_size)


def lean_body(body: bytes) -> bytes:
    """The file without what no picture needs, but a decoder may lose the picture or much time by.

    Raises:
        FetchError: `bomb` if the file has more pieces than an honest encoder writes.
    """
    if body.startswith(SIGNATURE):
        return lean_png(body)
    return first_frame(body) if body.startswith((b"GIF87a", b"GIF89a")) else body


def read_header(body: bytes) -> ImageHeader:
    """Read the header of an image's `lean_body`.

    Raises:
        FetchError: `not_an_image`, `hdr`, or `bomb`: Pillow refuses the size, or a JPEG has too many scans or segments.
    """
    from PIL import Image

    jpeg = jpeg_facts(body) if body.startswith(b"\xff\xd8") else NO_JPEG
    try:
        image: Any  # a class of the format
        with Image.open(io.BytesIO(body), formats=readable_formats()) as image:
            # MPO is the format of phones: a JPEG that is followed by further images
            name = "JPEG" if image.format == "MPO" else str(image.format)
            orientation = _orientation(image)
            width, height = image.size
            if name == "TIFF" and image.tag_v2.get(_EXIF_ORIENTATION) in range(5, 9):
                width, height = height, width  # Pillow swaps them here, but by another reader of the orientation
            return ImageHeader(
                name,
                width,
                height,
                _bmp_mode(body, image.mode) if name == "BMP" else image.mode,
                bits=body[24] if name == "PNG" else 8,  # IHDR: width, height, then the bit depth
                orientation=orientation,
                has_key_colour="transparency" in image.info,
                has_frames=name == "WEBP" and image.is_animated,
                profile=profile_to_apply(image, body),
                jpeg=jpeg,
            )
    except Image.DecompressionBombError as error:
        raise FetchError("bomb", str(error)) from None
    except FetchError:
        raise
    except Exception as error:  # noqa: BLE001 - Pillow's parsers raise anything on hostile bytes
        raise FetchError("not_an_image", f"starts with {body[:12]!r} ({type(error).__name__})") from None


def _bmp_mode(body: bytes, mode: str) -> str:
    """The mode of a BMP, with a name of its own where OpenCV errs.

    It takes any fourth byte as transparency, and makes a light grey of the white of 16 bits.
    """
    bits = int.from_bytes(body[28:30], "little")
    return {16: "BGR;16", 32: "BGRX"}.get(bits, mode)


@cache
def readable_formats() -> tuple[str, ...]:
    """The formats that are accepted, as far as this Pillow supports them; SVG, PSD, EPS and others are not."""
    import warnings

    from PIL import Image

    # Pillow warns of damaged files, which become failures here, and of large ones, which max_pixels limits
    warnings.filterwarnings("ignore", module=r"PIL\.")
    Image.init()
    return tuple(name for name in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF") if name in Image.OPEN)


def _orientation(image: Any) -> int:
    """The orientation, as Pillow's `exif_transpose` reads it: EXIF first, then XMP; 1 if both are missing or damaged.

    It is called as a method of the base class, because that of PNG decodes the whole picture to look behind its pixels.
    """
    from PIL import Image

    try:
        value = Image.Image.getexif(image).get(_EXIF_ORIENTATION, 1)
        return int(value) if value in range(1, 9) else 1
    except Exception:  # noqa: BLE001 - Pillow's parsers raise anything on hostile bytes; damaged facts turn nothing
        return 1
