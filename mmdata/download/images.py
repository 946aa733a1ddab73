"""Fetches one image and turns it into the JPEG to store, with img2dataset's functions under our guard.

img2dataset's own `Downloader` resizes in one thread, reads its work from a file and keeps errors as text. Therefore we
call the function that it calls for each URL (`download_image`) and its `Resizer` from our own threads.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from mmdata.config import Download, Privacy
from mmdata.download.picture_process import make_in_process
from mmdata.download.pictures import make_picture
from mmdata.download.private_img2dataset import img2dataset_module, resizer
from mmdata.media.listed_faces import Box
from mmdata.observe import logs
from mmdata.urls import host_and_port
from mmdata.web.failures import FetchError
from mmdata.web.large_files import FetchedFile
from mmdata.web.limits import Fetch, fetching
from mmdata.web.retries import wait_before_retry_s

_log = logs.logger(__name__)


@dataclass(frozen=True, slots=True)
class FetchedImage(FetchedFile):
    """A fetched image, or why there is none. The fields of `FetchedFile` are those of the body as fetched.

    Args:
        data: the JPEG to store; None if there is a failure.
        original_size, size: (width, height) in pixels, upright, before and after resizing.
        faces: how many it shows; None if they were not searched for.
        final_url: where the body came from, after redirects; None if that is not known.
    """

    data: bytes | None = None
    original_size: tuple[int, int] = (0, 0)
    size: tuple[int, int] = (0, 0)
    faces: int | None = None
    final_url: str | None = None


def load_img2dataset(download: Download) -> None:
    """Import img2dataset, which takes seconds that must not count towards the first URL's deadline."""
    img2dataset_module("downloader")
    resizer(download.image_size, download.encode_quality)


def fetch_image(url: str, download: Download) -> FetchedImage:
    """Fetch, check, resize and encode one image. Never raises for what a URL or its server does.

    Failures that may pass are retried up to `download.retries` times, with growing waits, all within one deadline.
    """
    deadline = time.monotonic() + download.deadline_s
    attempt = 1
    while True:
        body, fetch = _fetch_once(url, download, deadline)
        if fetch.failure is None:
            return replace(process_image(body, download, fetch.etag), final_url=fetch.final_url)
        if fetch.partial:  # the length may be wrong, and the picture whole
            image = process_image(fetch.partial, download, fetch.etag)
            if image.failure is None:
                return replace(image, final_url=fetch.final_url)
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
    picture = make_picture(body, download, make_in_process)
    return FetchedImage(
        picture.failure,
        hashlib.sha256(body).hexdigest(),
        len(body),
        picture.mime,
        etag,
        data=picture.data,
        original_size=picture.original_size,
        size=picture.size,
        md5=hashlib.md5(body, usedforsecurity=False).hexdigest(),
    )


def with_privacy(
    image: FetchedImage, download: Download, privacy: Privacy, listed_faces: Sequence[Box] = ()
) -> FetchedImage:
    """The image with its faces counted and blurred, if `privacy.blur_faces`. Without faces it keeps its bytes.

    Args:
        listed_faces: faces that the source knows of; they are blurred beside those that are found.

    Raises:
        UserError: the package that finds faces is not installed.
    """
    if image.data is None or not privacy.blur_faces:
        return image
    import cv2
    import numpy as np

    from mmdata.media.faces import blur_faces

    pixels: Any = cv2.imdecode(np.frombuffer(image.data, np.uint8), cv2.IMREAD_COLOR)
    blurred, faces = blur_faces(pixels, privacy.min_face_score, listed_faces)
    if not faces:
        return replace(image, faces=0)
    options = [cv2.IMWRITE_JPEG_QUALITY, download.encode_quality]
    _, data = cv2.imencode(".jpg", blurred, options)
    return replace(image, data=data.tobytes(), faces=faces)


def _fetch_once(url: str, download: Download, deadline: float) -> tuple[bytes, Fetch]:
    """The body, which is empty if the fetch has a failure, and the fetch."""
    with fetching(download, deadline) as fetch:
        _, stream, message = img2dataset_module("downloader").download_image(
            (0, url),
            timeout=download.timeout_s,
            user_agent_token=None,  # the guard sends the User-Agent, and reads X-Robots-Tag in all its forms
            disallowed_header_directives=None,
        )
        if stream is not None and message is None:
            body = stream.getvalue()
            fetch.failure = None if body else FetchError("empty", "the body has no bytes")
            return body, fetch
        if fetch.failure is None:
            fetch.failure = FetchError("bad_url", str(message))  # urllib refused it before the guard saw it
        return b"", fetch
