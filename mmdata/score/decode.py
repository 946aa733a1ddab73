"""Stored pictures to batches of pixels: read by offset, decoded in threads, ready before the model asks for them."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
from upath import UPath

from mmdata.errors import DataError
from mmdata.media.cores import cores
from mmdata.score import picture_measures
from mmdata.score.preprocess import Preprocess, fit, resized_size
from mmdata.storage.atomic import is_local

if TYPE_CHECKING:
    from mmdata.media.faces import FaceFinder

MAX_PIXELS = 100_000_000
BATCHES_AHEAD = 2  # decoded and waiting while the model works

TASK = 8  # pictures a thread takes at a time
TAIL = 64  # bytes in which a whole JPEG has its end marker

_JPEG_END = b"\xff\xd9"


@dataclass(frozen=True, slots=True)
class Member:
    """Where a stored picture lies in its tar, in bytes."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Look:
    """What decoding a picture told: its features, or why there are none.

    Args:
        width, height: of the stored picture, whatever fraction of it was decoded.
        faces: how many it shows; None: not looked for.
        thumb: grey levels of 16 x 16 cells, by which frames of a clip are compared.
        problem: `undecodable`, `too_many_pixels`, `missing_bytes`; the other fields are then None.
    """

    width: int | None = None
    height: int | None = None
    phash: int | None = None
    sharpness: float | None = None
    thumb: bytes | None = None
    faces: int | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """A run of members in their order.

    Args:
        start: index of the first of them.
        looks: one each.
        pixels: uint8 N,H,W,3 RGB of the model's size; rows of undecodable members are black.
    """

    start: int
    looks: list[Look]
    pixels: np.ndarray


class Decoder:
    """Reads and decodes members in threads, in order and in fixed batches, ahead of whoever iterates.

    What a batch holds depends on the order of the members alone, never on which thread was faster. Decoding starts
    with the object; at most `BATCHES_AHEAD` batches wait, so memory is bounded. Use as a context manager.

    Args:
        tar: on an object store it is fetched to local disk first, in one read.
        threads: 0 means one a core.
        min_face_score: faces are counted from this confidence on; None: they are not looked for.

    Raises:
        UserError: the package that finds faces is not installed.
        DataError: there is no such tar, though there are members.
    """

    def __init__(
        self,
        tar: UPath,
        members: Sequence[Member],
        preprocess: Preprocess,
        batch_size: int,
        threads: int = 0,
        min_face_score: float | None = None,
    ) -> None:
        import cv2

        from mmdata.media.faces import finder

        cv2.setNumThreads(1)  # each decoding thread is one core's work already
        self._preprocess = preprocess
        self._faces = None if min_face_score is None else finder(min_face_score)
        self._file = _open_local(tar) if members else None
        self._todo = deque((at, members[at : at + batch_size]) for at in range(0, len(members), batch_size))
        self._pool = ThreadPoolExecutor(threads or cores(), thread_name_prefix="decode")
        self._ahead: deque[tuple[int, np.ndarray, list[Future[list[Look]]]]] = deque()
        for _ in range(BATCHES_AHEAD):
            self._submit()

    def __enter__(self) -> Decoder:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        if self._file is not None:
            self._file.close()

    def __iter__(self) -> Iterator[Batch]:
        while self._ahead:
            start, pixels, futures = self._ahead.popleft()
            looks = [look for future in futures for look in future.result()]
            self._submit()
            yield Batch(start, looks, pixels)

    def _submit(self) -> None:
        if not self._todo or self._file is None:
            return
        start, members = self._todo.popleft()
        pixels = np.empty((len(members), *self._preprocess.size, 3), np.uint8)
        handle = self._file.fileno()
        futures = [
            self._pool.submit(
                _decode_run, handle, members[at : at + TASK], self._preprocess, pixels[at : at + TASK], self._faces
            )
            for at in range(0, len(members), TASK)
        ]
        self._ahead.append((start, pixels, futures))


def decode_picture(data: bytes, preprocess: Preprocess, out: np.ndarray, faces: FaceFinder | None = None) -> Look:
    """Decode one picture into `out`, and look at it. Never raises on bad data.

    JPEG is decoded at 1/2, 1/4 or 1/8 of its size where that leaves at least what the model and the sharpness
    measure need. Orientation tags are ignored, as open_clip's own transform ignores them; transparency is dropped.

    Args:
        out: uint8 of the model's size and 3; black where the picture cannot be decoded.
    """
    try:
        pixels, (height, width) = _decode(data, preprocess)
        fit(pixels, (height, width), preprocess, out)
        grey = picture_measures.grey_levels(pixels)
        count = None if faces is None else faces.count(pixels)
        return Look(
            width,
            height,
            picture_measures.perceptual_hash(grey),
            picture_measures.sharpness(grey),
            picture_measures.thumb(grey),
            count,
        )
    except _TooManyPixelsError:
        problem = "too_many_pixels"
    except Exception:  # noqa: BLE001 - the boundary of a picture: decoders raise a dozen kinds of error on hostile bytes
        problem = "undecodable"
    out[:] = 0
    return Look(problem=problem)


def decode_pixels(data: bytes, preprocess: Preprocess) -> np.ndarray:
    """Decode one picture to uint8 of `preprocess.size` and 3, RGB.

    Raises:
        ValueError: it cannot be decoded, or has more than MAX_PIXELS; says which.
    """
    out = np.empty((*preprocess.size, 3), np.uint8)
    try:
        pixels, size = _decode(data, preprocess)
        fit(pixels, size, preprocess, out)
    except _TooManyPixelsError:
        raise ValueError("too_many_pixels") from None
    except Exception as error:  # noqa: BLE001 - as in `decode_picture`
        raise ValueError(f"undecodable ({error})") from None
    return out


class _TooManyPixelsError(Exception):
    pass


def _decode(data: bytes, preprocess: Preprocess) -> tuple[np.ndarray, tuple[int, int]]:
    """uint8 RGB, perhaps reduced, and the whole picture's height and width."""
    import cv2
    from PIL import Image

    try:
        header = Image.open(io.BytesIO(data))
    except Image.DecompressionBombError:
        raise _TooManyPixelsError from None
    width, height = header.size
    if width * height > MAX_PIXELS:
        raise _TooManyPixelsError
    whole_jpeg = header.format == "JPEG" and header.mode in ("RGB", "L") and _JPEG_END in data[-TAIL:]
    if not whole_jpeg:  # Pillow raises where a file is cut short; OpenCV would paint the rest grey
        return np.array(header.convert("RGB")), (height, width)
    flags = {1: cv2.IMREAD_COLOR_RGB, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4}
    flags[8] = cv2.IMREAD_REDUCED_COLOR_8
    reduction = jpeg_reduction(height, width, preprocess)
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags[reduction] | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None:
        raise ValueError("not decoded")
    return (pixels if reduction == 1 else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)), (height, width)


def jpeg_reduction(height: int, width: int, preprocess: Preprocess) -> int:
    """The largest of 8, 4, 2, 1 that a JPEG's sides may be divided by and still be no smaller than needed."""
    resized_h, resized_w = resized_size(height, width, preprocess)
    for reduction in (8, 4, 2):
        enough = height // reduction >= resized_h and width // reduction >= resized_w
        if enough and min(height, width) // reduction >= picture_measures.SHARPNESS_SIDE:
            return reduction
    return 1


def _decode_run(
    handle: int, members: Sequence[Member], preprocess: Preprocess, out: np.ndarray, faces: FaceFinder | None
) -> list[Look]:
    return [_decode_member(handle, member, preprocess, out[at], faces) for at, member in enumerate(members)]


def _decode_member(
    handle: int, member: Member, preprocess: Preprocess, out: np.ndarray, faces: FaceFinder | None
) -> Look:
    data = os.pread(handle, member.length, member.offset) if member.length > 0 <= member.offset else b""
    if not data or len(data) < member.length:
        out[:] = 0
        return Look(problem="missing_bytes")
    return decode_picture(data, preprocess, out, faces)


def _open_local(tar: UPath) -> IO[bytes]:
    try:
        if is_local(tar):
            return Path(tar.path).open("rb")
        copy = tempfile.TemporaryFile(prefix="mmdata-")  # noqa: SIM115 - the decoder closes it
        with tar.open("rb") as remote:
            shutil.copyfileobj(remote, copy, 1 << 22)
        copy.flush()
        return copy
    except FileNotFoundError:
        raise DataError(
            f"{tar}: no such file, but its table tells of pictures in it. Remedy: run `media` again."
        ) from None
