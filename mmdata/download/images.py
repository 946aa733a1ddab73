"""One image from URL to stored JPEG, with img2dataset's fetch and Resizer under our guard.

img2dataset's own `Downloader` resizes in one thread, reads its work from a file and keeps errors as text, so we call
the function that it calls for each URL (`download_image`) and its `Resizer` from our own threads instead.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import threading
import time
import warnings
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from mmdata.config import Download
from mmdata.download.failures import FetchError, as_fetch_error
from mmdata.download.guard import Fetch, fetching
from mmdata.download.ledger import backoff_s

ROBOTS_DIRECTIVES = frozenset({"noai", "noimageai", "noindex", "noimageindex"})
_MIME = {"JPEG": "image/jpeg", "PNG": "image/png", "GIF": "image/gif", "WEBP": "image/webp", "BMP": "image/bmp"}
BIG_PIXELS = 16_000_000
_big_one_at_a_time = threading.Lock()
"""Decoding 100 million pixels takes hundreds of megabytes: not in every thread at once."""

_READ_BY_CV2 = frozenset({"JPEG", "PNG", "WEBP", "BMP"})
_PLAIN_MODES = frozenset({"RGB", "RGBA", "L", "P"})  # what cv2 and PIL read alike


@dataclass(frozen=True, slots=True)
class Header:
    """What an image's first bytes say, before anything is decoded."""

    format: str
    width: int
    height: int
    plain: bool  # cv2 decodes it as a viewer would: 8 bits, no turned camera, no ink colours

    @property
    def is_big(self) -> bool:
        return self.width * self.height > BIG_PIXELS

    @property
    def mime(self) -> str:
        return _MIME.get(self.format, f"image/{self.format.lower()}")


@dataclass(frozen=True, slots=True)
class FetchedImage:
    """A fetched image, or why there is none.

    Args:
        data: the JPEG to store; None if `failure` is set.
        sha256, size_bytes, mime: of the body as fetched, also where it could not be decoded.
        failure: class and message; `status` is the media table's.
    """

    status: str
    data: bytes | None = None
    failure: FetchError | None = None
    sha256: str | None = None
    size_bytes: int | None = None
    mime: str | None = None
    original_size: tuple[int, int] | None = None
    size: tuple[int, int] | None = None
    etag: str | None = None


def prepare(download: Download) -> None:
    """Import what fetching needs: seconds that must not count towards the first URL's deadline."""
    _img2dataset()
    _resizer(download.image_size, download.encode_quality)


def fetch_image(url: str, download: Download) -> FetchedImage:
    """Fetch, check, resize and encode one image. Never raises for what a URL or its server does.

    Faults that may pass are tried `download.retries` times more, with back-off, all within one deadline.
    """
    deadline = time.monotonic() + download.deadline_s
    attempt = 1
    while True:
        body, fetch = _fetch_once(url, download, deadline)
        if fetch.failure is None:
            return process_image(body, download, fetch.etag)
        wait_s = max(backoff_s(url, attempt), fetch.failure.retry_after_s or 0.0)
        out_of_time = time.monotonic() + wait_s >= deadline
        if not fetch.failure.may_pass or attempt > download.retries or out_of_time:
            return FetchedImage(fetch.failure.status, failure=fetch.failure, etag=fetch.etag)
        time.sleep(wait_s)
        attempt += 1


def process_image(body: bytes, download: Download, etag: str | None = None) -> FetchedImage:
    """Check a fetched body and turn it into the image to store: shorter side `image_size`, never enlarged, JPEG."""
    sha256, length = hashlib.sha256(body).hexdigest(), len(body)
    header: Header | None = None
    try:
        header = read_header(body)
        if header.width * header.height > download.max_pixels:
            raise FetchError("bomb", f"{header.width} x {header.height} pixels is over download.max_pixels")
        with _big_one_at_a_time if header.is_big else contextlib.nullcontext():
            plain = header.plain and header.format in _READ_BY_CV2 and not header.is_big
            source = io.BytesIO(body if plain else redraw(body))
            resizer = _resizer(download.image_size, download.encode_quality)
            data, width, height, original_width, original_height, error = resizer(source)
        if error is not None:
            raise FetchError("undecodable", str(error))
    except FetchError as failure:
        status = "refused" if failure.error == "bomb" else "failed_to_resize"
        mime = header.mime if header else None
        return FetchedImage(status, None, failure, sha256, length, mime, etag=etag)
    original = (original_width, original_height)
    return FetchedImage("success", bytes(data), None, sha256, length, header.mime, original, (width, height), etag)


def read_header(body: bytes) -> Header:
    """Format and size without decoding. Raises FetchError `not_an_image`."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large images; max_pixels is the rule here
            with Image.open(io.BytesIO(body), formats=("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")) as image:
                turned = image.getexif().get(0x0112, 1) not in (0, 1)
                transparent_palette = image.mode == "P" and "transparency" in image.info
                plain = image.mode in _PLAIN_MODES and not turned and not transparent_palette
                return Header(str(image.format), image.width, image.height, plain)
    except Image.DecompressionBombError as error:
        raise FetchError("bomb", str(error)) from None
    except Exception as error:  # noqa: BLE001 - Pillow's parsers raise what they like on hostile bytes
        head = body[:16].lstrip()[:8]
        raise FetchError("not_an_image", f"starts with {head!r} ({type(error).__name__})") from None


def redraw(body: bytes) -> bytes:
    """An unusual image as plain 8-bit RGB on white, as a viewer shows it: turned upright, first frame, ink to light."""
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(body)) as image:
            image.seek(0)
            upright: Any = ImageOps.exif_transpose(image)
            if upright.mode in ("I;16", "I;16B", "I;16L", "I", "F"):
                levels = np.asarray(upright).astype(np.float64)
                top = 65535.0 if levels.max() > 255 else 255.0
                upright = Image.fromarray((levels.clip(0, top) * (255.0 / top)).astype(np.uint8))
            if "A" in upright.getbands() or "transparency" in upright.info:
                upright = upright.convert("RGBA")
                white = Image.new("RGBA", upright.size, "white")
                upright = Image.alpha_composite(white, upright)
            out = io.BytesIO()
            upright.convert("RGB").save(out, "BMP")
            return out.getvalue()
    except Exception as error:  # noqa: BLE001 - Pillow's decoders raise what they like on hostile bytes
        raise FetchError("undecodable", f"{type(error).__name__}: {error}") from None


def _fetch_once(url: str, download: Download, deadline: float) -> tuple[bytes, Fetch]:
    img2dataset = _img2dataset()
    with fetching(download, deadline) as fetch:
        _, stream, message = img2dataset.download_image(
            (0, url),
            timeout=download.timeout_s,
            user_agent_token=download.user_agent.lower(),
            disallowed_header_directives=ROBOTS_DIRECTIVES if download.respect_robots else None,
        )
        if stream is not None and message is None:
            fetch.failure = None
            return stream.getvalue(), fetch
        if "X-Robots-Tag" in (message or ""):
            fetch.failure = FetchError("robots", "the server's X-Robots-Tag disallows this use")
        elif fetch.failure is None:
            fetch.failure = as_fetch_error(ValueError(message))
        return b"", fetch


@cache
def _img2dataset() -> Any:
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # albumentations asks the web for its newest version otherwise
    import img2dataset.downloader

    return img2dataset.downloader


@cache
def _resizer(image_size: int, quality: int) -> Any:
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    import img2dataset.resizer

    # It points the process's stdout and stderr at /dev/null around each image, to hush libjpeg: with several threads
    # they may stay there. A warning on stderr is the lesser evil.
    img2dataset.resizer.SuppressStdoutStderr = contextlib.nullcontext
    return img2dataset.resizer.Resizer(
        image_size=image_size,
        resize_mode="keep_ratio",
        resize_only_if_bigger=True,
        encode_quality=quality,
        encode_format="jpg",
    )
