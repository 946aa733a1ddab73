"""Decoded video frames as viewers show them, and as stored JPEGs. Used while a clip is cut."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mmdata.media.colour import reduced_rgb, rgb_pixels
from mmdata.media.orientation import orientation

if TYPE_CHECKING:
    from mmdata.media.clip import ClipOptions

SIGNATURE_SIZE = (64, 36)


@dataclass(frozen=True, slots=True)
class Picture:
    """A frame as it is stored.

    Args:
        time_s: of the frame in its file.
        data: JPEG.
        size: width and height in pixels.
        faces: how many faces were blurred; None if none were searched for.
    """

    time_s: float
    data: bytes
    size: tuple[int, int]
    faces: int | None


def encode_picture(time_s: float, frame: Any, pixel_ratio: float, options: ClipOptions) -> Picture:
    """A decoded frame as an upright JPEG: shorter side `image_size`, never enlarged, faces blurred if asked for."""
    import cv2

    pixels = cv2.cvtColor(upright_pixels(frame, pixel_ratio, options.image_size), cv2.COLOR_RGB2BGR)
    faces = None
    if options.blur_faces:
        from mmdata.media.faces import blur_faces

        pixels, faces = blur_faces(pixels, options.min_face_score)
    _, data = cv2.imencode(".jpg", np.ascontiguousarray(pixels), [cv2.IMWRITE_JPEG_QUALITY, options.quality])
    return Picture(time_s, data.tobytes(), (pixels.shape[1], pixels.shape[0]), faces)


def scene_signature(frame: Any) -> np.ndarray:
    """A decoded frame as int16 36,64,3: hue, saturation and value, reduced; two frames are compared by their mean."""
    import cv2

    reduced = reduced_rgb(frame, *SIGNATURE_SIZE)
    return cv2.cvtColor(reduced, cv2.COLOR_RGB2HSV).astype(np.int16)


def shown_size(frame: Any, pixel_ratio: float = 1.0) -> tuple[int, int]:
    """Width and height of a decoded frame as viewers show it: upright, with square pixels."""
    width, height = max(1, round(frame.width * pixel_ratio)), frame.height
    return (height, width) if orientation(frame).swaps_axes else (width, height)


def upright_pixels(frame: Any, pixel_ratio: float, image_size: int) -> np.ndarray:
    """A decoded frame as viewers show it: uint8 H,W,3 RGB, turned and mirrored, with square pixels.

    Args:
        pixel_ratio: width of a pixel over its height.
        image_size: pixels of the shorter side; smaller frames are not enlarged.
    """
    width, height = max(1, round(frame.width * pixel_ratio)), frame.height
    scale = image_size / min(width, height)
    if scale < 1:
        width, height = max(1, round(width * scale)), max(1, round(height * scale))
    return orientation(frame).upright(rgb_pixels(frame, (width, height)))
