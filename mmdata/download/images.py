"""Fetches one image and turns it into the JPEG to store, with img2dataset's functions under our guard.

img2dataset's own `Downloader` resizes in one thread, reads its work from a file and keeps errors as text. Therefore we
call the function that it calls for each URL (`download_image`) and its `Resizer` from our own threads. A plain image is
stored byte for byte as img2dataset would store it; large and unusual ones are first turned into a BMP.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import logging
import os
import sys
import threading
import time
import types
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from typing import Any

from mmdata.config import Download, Privacy
from mmdata.media.image_header import ImageHeader, read_header
from mmdata.media.image_to_bmp import reduced_jpeg, rgba_on_white, viewed_as_bmp
from mmdata.observe import logs
from mmdata.urls import host_and_port
from mmdata.web.failures import FetchError
from mmdata.web.large_files import FetchedFile
from mmdata.web.limits import Fetch, fetching
from mmdata.web.retries import wait_before_retry_s

_log = logs.logger(__name__)

BIG_IMAGE_PIXELS = 16_000_000
_big_image_lock = threading.Lock()
"""Big images are decoded one at a time: 100 million pixels take hundreds of megabytes."""


@dataclass(frozen=True, slots=True)
class FetchedImage(FetchedFile):
    """A fetched image, or why there is none. The fields of `FetchedFile` are those of the body as fetched.

    Args:
        data: the JPEG to store; None if there is a failure.
        original_size, size: (width, height) in pixels, upright, before and after resizing.
        faces: how many it shows; None if they were not searched for.
    """

    data: bytes | None = None
    original_size: tuple[int, int] = (0, 0)
    size: tuple[int, int] = (0, 0)
    faces: int | None = None


def load_img2dataset(download: Download) -> None:
    """Import img2dataset, which takes seconds that must not count towards the first URL's deadline."""
    _img2dataset("downloader")
    _resizer(download.image_size, download.encode_quality)


def fetch_image(url: str, download: Download) -> FetchedImage:
    """Fetch, check, resize and encode one image. Never raises for what a URL or its server does.

    Failures that may pass are retried up to `download.retries` times, with growing waits, all within one deadline.
    """
    deadline = time.monotonic() + download.deadline_s
    attempt = 1
    while True:
        body, fetch = _fetch_once(url, download, deadline)
        if fetch.failure is None:
            return process_image(body, download, fetch.etag)
        wait_s = wait_before_retry_s(url, fetch.failure, attempt, download.retries, deadline)
        if wait_s is None:
            return FetchedImage(fetch.failure, etag=fetch.etag)
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug(
                "fetch is tried again",
                host=host_and_port(url),
                reason=fetch.failure.error,
                wait_s=wait_s,
                tries=attempt,
            )
        time.sleep(wait_s)
        attempt += 1


def process_image(body: bytes, download: Download, etag: str | None = None) -> FetchedImage:
    """Check a fetched body and turn it into the JPEG to store: shorter side `image_size`, never enlarged."""
    image = FetchedImage(None, hashlib.sha256(body).hexdigest(), len(body), None, etag)
    try:
        header = read_header(body)
        image = replace(image, mime=header.mime)
        if header.pixels > download.max_pixels:
            raise FetchError(
                "bomb", f"{header.width} x {header.height} pixels is over download.max_pixels ({download.max_pixels})"
            )
        data, size = _resize(body, header, download)
    except FetchError as failure:
        return replace(image, failure=failure)
    return replace(image, data=data, original_size=header.upright_size, size=size)


def with_privacy(image: FetchedImage, download: Download, privacy: Privacy) -> FetchedImage:
    """The image with its faces counted and blurred, if `privacy.blur_faces`. Without faces it keeps its bytes.

    Raises:
        UserError: the package that finds faces is not installed.
    """
    if image.data is None or not privacy.blur_faces:
        return image
    import cv2
    import numpy as np

    from mmdata.media.faces import blur_faces

    pixels: Any = cv2.imdecode(np.frombuffer(image.data, np.uint8), cv2.IMREAD_COLOR)
    blurred, faces = blur_faces(pixels, privacy.min_face_score)
    if not faces:
        return replace(image, faces=0)
    options = [cv2.IMWRITE_JPEG_QUALITY, download.encode_quality]
    _, data = cv2.imencode(".jpg", blurred, options)
    return replace(image, data=data.tobytes(), faces=faces)


def _resize(body: bytes, header: ImageHeader, download: Download) -> tuple[bytes, tuple[int, int]]:
    """The JPEG to store, and its width and height. Raises FetchError `undecodable`."""
    reduction = header.reduction(download.image_size)
    with _big_image_lock if header.pixels > BIG_IMAGE_PIXELS * reduction**2 else contextlib.nullcontext():
        if header.is_rgb_jpeg and (reduction > 1 or header.is_turned):
            body = reduced_jpeg(body, reduction)
        elif not header.is_plain:
            body = viewed_as_bmp(body, reduction)
        elif header.mode == "RGBA":
            body = rgba_on_white(body)
        data, width, height, _, _, error = _resizer(download.image_size, download.encode_quality)(io.BytesIO(body))
    if error is not None:
        raise FetchError("undecodable", str(error))
    return data, (width, height)


def _fetch_once(url: str, download: Download, deadline: float) -> tuple[bytes, Fetch]:
    """The body, which is empty if the fetch has a failure, and the fetch."""
    with fetching(download, deadline) as fetch:
        _, stream, message = _img2dataset("downloader").download_image(
            (0, url),
            timeout=download.timeout_s,
            user_agent_token=None,  # the guard sends the User-Agent, and reads X-Robots-Tag in all its forms
            disallowed_header_directives=None,
        )
        if stream is not None and message is None:
            fetch.failure = None
            return stream.getvalue(), fetch
        if fetch.failure is None:
            fetch.failure = FetchError("bad_url", str(message))  # urllib refused it before the guard saw it
        return b"", fetch


@cache
def _img2dataset(module: str) -> Any:
    """A private copy of one of img2dataset's modules, loaded without the package's `__init__`.

    The `__init__` would import torch, pandas and webdataset: seconds, and 400 MB in every worker. Whoever imports
    img2dataset does not see what `_resizer` changes in this copy.
    """
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # albumentations asks the web for its newest version otherwise
    os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", "200000000")  # a second check behind download.max_pixels
    modules_of_others = _pop_img2dataset_modules()
    spec = find_spec("img2dataset")
    if spec is None:
        raise ModuleNotFoundError("No module named 'img2dataset'", name="img2dataset")
    package = types.ModuleType("img2dataset")
    package.__path__ = list(spec.submodule_search_locations or ())
    sys.modules["img2dataset"] = package
    try:
        return importlib.import_module(f"img2dataset.{module}")
    finally:
        _pop_img2dataset_modules()
        sys.modules.update(modules_of_others)


def _pop_img2dataset_modules() -> dict[str, types.ModuleType]:
    """Remove img2dataset's modules from `sys.modules`, and return them."""
    names = [name for name in sys.modules if name == "img2dataset" or name.startswith("img2dataset.")]
    return {name: sys.modules.pop(name) for name in names}


@cache
def _resizer(image_size: int, quality: int) -> Any:
    resizer = _img2dataset("resizer")
    # The original redirects the process's stdout and stderr to /dev/null around each image, to silence libjpeg. With
    # several threads they may stay redirected, which is worse than a warning on stderr.
    resizer.SuppressStdoutStderr = contextlib.nullcontext
    return resizer.Resizer(
        image_size=image_size,
        resize_mode="keep_ratio",
        resize_only_if_bigger=True,
        encode_quality=quality,
        encode_format="jpg",
    )
