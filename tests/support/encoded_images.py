"""Encoded images for tests, and how the stored picture is compared with what it shows."""

from __future__ import annotations

import io
import struct
import zlib

import cv2
import numpy as np
from PIL import Image

from mmdata.config import Download
from mmdata.download.images import process_image

SETTINGS = Download()


def gradient(width: int = 640, height: int = 480) -> np.ndarray:
    """A smooth BGR picture, darker to the left, so that turning it shows."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    return (np.stack([x, 0.5 * x + 0.25 * y, 0.8 * x], -1) * 255).astype(np.uint8)


def encoded(pixels: np.ndarray, ext: str, *options: int) -> bytes:
    return cv2.imencode(ext, pixels, list(options))[1].tobytes()


def pillow(pixels: np.ndarray, form: str, mode: str = "RGB", **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)).convert(mode).save(out, form, **options)
    return out.getvalue()


def stored(body: bytes, settings: Download = SETTINGS) -> np.ndarray:
    image = process_image(body, settings)
    assert image.failure is None, image.failure
    assert image.data is not None
    pixels = cv2.imdecode(np.frombuffer(image.data, np.uint8), cv2.IMREAD_COLOR)
    assert image.size == (pixels.shape[1], pixels.shape[0])
    return pixels


def psnr_db(first: np.ndarray, second: np.ndarray) -> float:
    """Peak signal-to-noise ratio of two pictures, in decibels."""
    return 10 * np.log10(255**2 / max(np.mean((first.astype(float) - second.astype(float)) ** 2), 1e-9))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of_size(width: int, height: int) -> bytes:
    """A PNG whose header claims a size and whose pixels are missing."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
