"""Turns unusual images into plain 8-bit BMPs, and large ones into smaller BMPs, for img2dataset's Resizer.

Used by `mmdata.download.images`.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from mmdata.media.colour_profile import bgr_in_srgb, in_srgb
from mmdata.media.image_header import ImageHeader, readable_formats
from mmdata.media.jpeg_tail import CUT_SHORT, closed_jpeg, ends_in_grey, is_cut_short, lacks_scans
from mmdata.media.png_chunks import SIGNATURE, has_sound_pixels
from mmdata.web.failures import FetchError

MAX_PACKED_BYTES = 1_000_000  # of a PNG: OpenCV unpacks all to the end, also a gigabyte behind the last pixel
_STRIP_ROWS = 512  # as much of a picture is blended at a time, so that few copies of a large one exist


def as_bmp(body: bytes, header: ImageHeader, reduction: int) -> bytes | None:
    """An image as a BMP in the colours that viewers show; None if OpenCV reads the file itself in the same way.

    Args:
        body: the image's `lean_body`.
        reduction: 1, 2, 4 or 8, by which the sides may be divided.

    Raises:
        FetchError: `undecodable`, or `bomb` if memory is short.
    """
    if header.format == "JPEG":
        body = _whole_jpeg(body, header)
    if header.is_rgb_jpeg and not (header.is_plain and reduction == 1 and header.jpeg.end >= 0):
        return jpeg_as_bmp(body, header, reduction)
    is_plain_otherwise = header.profile is None and not header.is_turned
    if header.bits == 16 and header.mode == "RGB" and header.has_key_colour and is_plain_otherwise:
        return _bmp(_on_white((_decoded(body) >> 8).astype(np.uint8)))  # Pillow compares its 8 bits with the key's 16
    if not header.is_plain:
        return viewed_as_bmp(body, header, reduction)
    if header.format == "PNG" and len(body) > MAX_PACKED_BYTES:
        return _bmp(_on_white(_decoded_by_pillow(body)))
    return _bmp(_on_white(_decoded(body))) if header.mode == "RGBA" else None


def jpeg_as_bmp(body: bytes, header: ImageHeader, reduction: int) -> bytes:
    """A JPEG as an upright BMP, decoded at 1/reduction of its size: libjpeg scales it in its cosine transform.

    Args:
        reduction: 1, 2, 4 or 8.

    Raises:
        FetchError: `undecodable`, also if the file breaks off before its picture is complete.
    """
    import cv2

    flags = {
        1: cv2.IMREAD_COLOR if header.is_turned else cv2.IMREAD_UNCHANGED,
        2: cv2.IMREAD_REDUCED_COLOR_2,
        4: cv2.IMREAD_REDUCED_COLOR_4,
        8: cv2.IMREAD_REDUCED_COLOR_8,
    }
    pixels = _decoded(body, flags[reduction] | cv2.IMREAD_IGNORE_ORIENTATION)
    if ends_in_grey(pixels) and is_cut_short(body):
        raise FetchError("undecodable", CUT_SHORT)
    if header.profile is not None:
        pixels = bgr_in_srgb(pixels, header.profile)
    return _bmp(_upright(pixels, header.orientation))


def viewed_as_bmp(body: bytes, header: ImageHeader, reduction: int) -> bytes:
    """Any image as a BMP, as viewers show it: upright, first frame, in sRGB, transparency on white.

    Args:
        reduction: each side is divided by it; pixels are averaged.

    Raises:
        FetchError: `undecodable`.
    """
    from PIL import Image

    try:
        with _opened_by_pillow(body) as image:
            if header.format == "JPEG" and ends_in_grey(_last_pixels(image)) and is_cut_short(body):
                raise FetchError("undecodable", CUT_SHORT)
            pixels: Any = _with_eight_bits(image)
            if header.profile is not None:
                pixels = in_srgb(pixels, header.profile)
            if header.format == "BMP" and pixels.mode == "RGBA" and pixels.getchannel("A").getextrema()[1] == 0:
                pixels = pixels.convert("RGB")  # writers who know no transparency leave it at 0
            pixels = _opaque(pixels)
            if header.format == "GIF":
                pixels = _on_screen(pixels, image.dispose_extent)
            turn = _PILLOW_TURNS.get(header.orientation)
            if turn and header.format != "TIFF":  # Pillow turns a TIFF while it decodes it
                pixels = pixels.transpose(Image.Transpose[turn])
            if reduction > 1:
                pixels = pixels.reduce(reduction)
            out = io.BytesIO()
            pixels.save(out, "BMP")
            return out.getvalue()
    except Exception as error:  # noqa: BLE001 - Pillow's decoders raise anything on hostile bytes
        raise _failure(error) from None


_PILLOW_TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
"""EXIF orientation -> the name of Pillow's transposition that undoes it."""


def _whole_jpeg(body: bytes, header: ImageHeader) -> bytes:
    """A JPEG that has all its scans and an end marker. Raises FetchError `undecodable` if a scan or data is missing."""
    if header.jpeg.end < 0:
        return closed_jpeg(body)
    if header.jpeg.has_many_scans and lacks_scans(body):
        raise FetchError("undecodable", CUT_SHORT)
    return body


def _opened_by_pillow(body: bytes) -> Any:
    """A Pillow image, at its first frame. The image is a context manager."""
    from PIL import Image

    if body.startswith(SIGNATURE) and not has_sound_pixels(body):
        raise FetchError("undecodable", "the checksum of the pixels is wrong")
    image = Image.open(io.BytesIO(body), formats=readable_formats())
    image.seek(0)
    return image


def _failure(error: Exception) -> FetchError:
    """What a decoder's exception means for its picture."""
    return error if isinstance(error, FetchError) else decoding_failure(f"{type(error).__name__}: {error}")


def decoding_failure(message: str) -> FetchError:
    """The failure by a decoder's message: `bomb` if memory was short, which may pass, else `undecodable`."""
    if "memory" in message.lower():
        return FetchError("bomb", f"decoding takes more memory than there is: {message}", may_pass=True)
    return FetchError("undecodable", message)


def _decoded_by_pillow(body: bytes) -> np.ndarray:
    """The pixels of a plain PNG as OpenCV gives them: uint8 H,W grey, H,W,3 BGR or H,W,4 BGRA."""
    import cv2

    try:
        with _opened_by_pillow(body) as image:
            pixels = np.asarray(image.convert("RGB") if image.mode == "P" else image)
    except Exception as error:  # noqa: BLE001 - Pillow's decoders raise anything on hostile bytes
        raise _failure(error) from None
    if pixels.ndim == 2:
        return pixels
    return cv2.cvtColor(pixels, cv2.COLOR_RGBA2BGRA if pixels.shape[2] == 4 else cv2.COLOR_RGB2BGR)


def _decoded(body: bytes, flags: int | None = None) -> np.ndarray:
    """The pixels that OpenCV decodes; by default as they are in the file."""
    import cv2

    try:
        pixels = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_UNCHANGED if flags is None else flags)
    except cv2.error as error:
        raise _failure(error) from None
    if pixels is None:
        raise FetchError("undecodable", "the image cannot be decoded")
    return pixels


def _on_white(pixels: np.ndarray) -> np.ndarray:
    """Pixels without transparency (uint8 H,W,3 BGR): the values that img2dataset's Resizer computes in floating point.

    Args:
        pixels: uint8 H,W grey, H,W,3 BGR or H,W,4 BGRA.
    """
    import cv2

    if pixels.ndim == 2 or pixels.shape[2] < 4:
        return pixels
    colours = cv2.cvtColor(pixels, cv2.COLOR_BGRA2BGR)
    for top in range(0, len(pixels), _STRIP_ROWS):
        strip = pixels[top : top + _STRIP_ROWS]
        alpha = strip[..., 3:].astype(np.uint16)
        if alpha.min() < 255:
            # 255 * 255 + 127 fits 16 bits; rounding never meets a tie, because 255 is odd
            blended = (strip[..., :3] * alpha + 127) // 255 + (255 - alpha)
            colours[top : top + _STRIP_ROWS] = blended
    return colours


def _opaque(image: Any) -> Any:
    """A Pillow image in RGB, with its transparency on white."""
    from PIL import Image

    if "A" not in image.getbands() and "transparency" not in image.info:
        return image.convert("RGB")
    image = image.convert("RGBA")
    opaque = Image.new("RGB", image.size)
    for top in range(0, image.height, _STRIP_ROWS):
        strip = image.crop((0, top, image.width, min(top + _STRIP_ROWS, image.height)))
        opaque.paste(Image.alpha_composite(Image.new("RGBA", strip.size, "white"), strip).convert("RGB"), (0, top))
    return opaque


def _on_screen(image: Any, frame: tuple[int, int, int, int]) -> Any:
    """A GIF with white where its frame leaves the screen free, as in browsers; Pillow paints a colour there."""
    from PIL import Image

    if frame == (0, 0, *image.size):
        return image
    screen = Image.new("RGB", image.size, "white")
    screen.paste(image.crop(frame), frame[:2])
    return screen


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels (H,W or H,W,3) as a viewer shows them."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _last_pixels(image: Any) -> np.ndarray:
    """The last pixels of a Pillow image's last row."""
    width, height = image.size
    return np.asarray(image.crop((max(0, width - 8), height - 1, width, height)))


def _bmp(pixels: np.ndarray) -> bytes:
    import cv2

    return cv2.imencode(".bmp", pixels)[1].tobytes()


def _with_eight_bits(image: Any) -> Any:
    """Grey levels of 16 bits or more as 8 bits; white stays white."""
    from PIL import Image

    if not image.mode.startswith(("I", "F")):
        return image
    levels = np.asarray(image)
    if image.mode.startswith("F"):
        return Image.fromarray((levels * (1.0 if levels.max() > 1 else 255.0)).clip(0, 255).astype(np.uint8))
    grey = Image.fromarray((levels.clip(0, 65535) >> 8).astype(np.uint8))
    if isinstance(key := image.info.get("transparency"), int):
        grey.putalpha(Image.fromarray(np.where(levels == key, 0, 255).astype(np.uint8)))
    return grey
