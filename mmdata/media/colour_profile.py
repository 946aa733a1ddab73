"""Brings pictures of other colour spaces to sRGB: by their ICC profile, or by the code points of PNG and AVIF.

Used by `image_header` and `image_to_bmp`. Code points follow ITU-T H.273.
"""

from __future__ import annotations

import io
import struct
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from mmdata.web.failures import FetchError

if TYPE_CHECKING:
    import numpy as np

MAX_PROFILE_BYTES = 4_000_000  # profiles of printers have half a megabyte
SRGB_TOLERANCE = 4  # levels of 255; a profile that moves no colour further is taken as sRGB, and changes no byte

_SPACES = {"RGB": "RGB", "RGBA": "RGB", "RGBX": "RGB", "P": "RGB", "PA": "RGB", "YCbCr": "RGB", "CMYK": "CMYK"}
_HDR_TRANSFERS = {16: "PQ", 18: "HLG"}
_BT2020, _DISPLAY_P3 = 9, 12
_PRIMARIES = {  # X, Y and Z of red, green and blue, relative to the white D50 of profiles
    _BT2020: ((0.67346, 0.27904, -0.00193), (0.16566, 0.67534, 0.02998), (0.12510, 0.04561, 0.79686)),
    _DISPLAY_P3: ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407)),
}
_SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)


def profile_to_apply(image: Any, body: bytes) -> bytes | None:
    """The ICC profile that an opened picture must be converted by; None if its colours are those of sRGB.

    A broken profile, and one of another kind of colours than the picture has, is ignored, as browsers do.

    Raises:
        FetchError: `hdr` if the picture's light is coded as PQ or HLG, which nothing here turns into common light.
    """
    profile, by_points = image.info.get("icc_profile"), _profile_of_code_points(image, body)
    if image.format == "PNG" or not profile:  # cICP comes before iCCP, but an ICC profile of AVIF before nclx
        profile = by_points or profile
    if not profile or len(profile) > MAX_PROFILE_BYTES:
        return None
    return profile if _transform(profile, _profile_space(image.mode)) is not None else None


def in_srgb(image: Any, profile: bytes) -> Any:
    """A Pillow image converted from a profile to sRGB; the result is RGB, or RGBA if there is transparency."""
    alpha = None
    if _profile_space(image.mode) == "RGB":
        has_alpha = "A" in image.getbands() or "transparency" in image.info
        image = image.convert("RGBA" if has_alpha else "RGB")
    if "A" in image.getbands():
        alpha = image.getchannel("A")
    space = _profile_space(image.mode)
    converted = _transform(profile, space).apply(image.convert({"GRAY": "L"}.get(space, space)))
    if alpha is not None:
        converted.putalpha(alpha)
    return converted


def bgr_in_srgb(pixels: np.ndarray, profile: bytes) -> np.ndarray:
    """Pixels as OpenCV has them (uint8 H,W grey or H,W,3 BGR), converted from a profile to sRGB (H,W,3 BGR)."""
    import cv2
    import numpy as np
    from PIL import Image

    image = Image.fromarray(pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))
    return cv2.cvtColor(np.asarray(in_srgb(image, profile)), cv2.COLOR_RGB2BGR)


def matrix_profile(primaries: tuple[tuple[float, float, float], ...], curve: tuple[float, ...]) -> bytes:
    """An ICC profile of three primaries.

    Args:
        primaries: X, Y and Z of red, green and blue, relative to D50.
        curve: of the light: one number is a gamma; five are the parameters g, a, b, c and d of a curve with a
            linear start.
    """
    kind = {1: 0, 5: 3}[len(curve)]
    light = b"para" + struct.pack(">4xHxx", kind) + b"".join(_fixed(value) for value in curve)
    white = (0.9642, 1.0, 0.8249)
    tags = {b"wtpt": _xyz(white), b"rTRC": light, b"gTRC": light, b"bTRC": light}
    tags |= {name: _xyz(colour) for name, colour in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True)}
    table, data = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        table += struct.pack(">4sII", name, start + len(data), len(content))
        data += content
    size = start + len(data)
    header = struct.pack(">I4sI4s4s4s12x4s", size, b"\0" * 4, 0x04200000, b"mntr", b"RGB ", b"XYZ ", b"acsp")
    header = header.ljust(68, b"\0") + b"".join(_fixed(value) for value in white)
    return header.ljust(128, b"\0") + table + data


def _profile_space(mode: str) -> str:
    """The kind of colours that a profile for a Pillow mode must have."""
    return _SPACES.get(mode, "GRAY")


def _profile_of_code_points(image: Any, body: bytes) -> bytes | None:
    """The profile of the primaries that PNG's cICP chunk or AVIF's `nclx` box names; None if they are common ones."""
    if image.format == "PNG":
        place = body.find(b"\0\0\0\4cICP", 0, body.find(b"IDAT"))
        points = body[place + 8 : place + 12] if place >= 0 else b""
        primaries, transfer = (points[0], points[1]) if len(points) == 4 else (0, 0)
    elif image.format == "AVIF":
        place = body.find(b"colrnclx", 0, 65_536)
        points = body[place + 8 : place + 12] if place >= 0 else b""
        primaries, transfer = struct.unpack(">HH", points) if len(points) == 4 else (0, 0)
    else:
        return None
    if transfer in _HDR_TRANSFERS:
        raise FetchError("hdr", f"its light is coded as {_HDR_TRANSFERS[transfer]}, for displays of high dynamic range")
    return matrix_profile(_PRIMARIES[primaries], _SRGB_CURVE) if primaries in _PRIMARIES else None


@lru_cache(maxsize=32)
def _transform(profile: bytes, space: str) -> Any:
    """Pillow's transform from a profile to sRGB; None if the profile is broken, or of another kind, or is sRGB."""
    import numpy as np
    from PIL import Image, ImageCms

    mode = {"GRAY": "L"}.get(space, space)
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space.strip() != space:
            return None
        target = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
        transform = ImageCms.buildTransform(source, target, mode, "RGB", ImageCms.Intent.PERCEPTUAL)
        if mode == "CMYK":
            return transform
        levels = np.arange(0, 256, 15, dtype=np.uint8)
        colours = (
            levels if mode == "L" else np.stack(np.meshgrid(levels, levels, levels), -1).reshape(len(levels), -1, 3)
        )
        colours = np.atleast_2d(colours)
        before = colours[..., None] if mode == "L" else colours
        moved = np.abs(np.asarray(transform.apply(Image.fromarray(colours))).astype(int) - before.astype(int))
        return transform if moved.max() > SRGB_TOLERANCE else None
    except Exception:  # noqa: BLE001 - a stranger's profile may break the library in any way; it is ignored then
        return None


def _xyz(values: tuple[float, ...]) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(_fixed(value) for value in values)


def _fixed(value: float) -> bytes:
    """A number with 16 bits behind the point."""
    return struct.pack(">i", round(value * 65536))
