"""Decode stored pictures into batches of pixels: read from the tar by offset, in threads, ahead of the model."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
from upath import UPath

from mmdata.errors import DataError
from mmdata.media.cores import cores
from mmdata.score import picture_measures
from mmdata.score.preprocess import Crop, Preprocess, fit_crop, fit_picture, resized_size
from mmdata.storage.atomic import is_local
from mmdata.workspace.layout import redo_remedy, split_media_tar_name

if TYPE_CHECKING:
    from mmdata.media.faces import FaceFinder

MAX_PIXELS = 100_000_000
BATCHES_AHEAD = 2  # decoded and waiting while the model works
PICTURES_PER_TASK = 8  # a decoding thread takes so many at a time
JPEG_END = b"\xff\xd9"
JPEG_TAIL_BYTES = 64  # a JPEG that is not cut short has its end marker in these last bytes


@dataclass(frozen=True, slots=True)
class Member:
    """Where a stored picture lies in its tar, in bytes."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class PictureMeasures:
    """What is measured while a picture is decoded, or why it could not be decoded.

    Args:
        width, height: of the stored picture in pixels, also where only a fraction of it was decoded.
    """

    width: int | None = None
    height: int | None = None
    phash: int | None = None  # 64-bit perceptual hash
    sharpness: float | None = None  # variance of the Laplacian
    thumbnail: bytes | None = None  # grey levels of 16 x 16 cells, by which the frames of a clip are compared
    faces: int | None = None  # how many faces it shows; None: they were not counted
    problem: str | None = None  # `undecodable`, `too_many_pixels` or `missing_bytes`; all other fields are then None


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive members, decoded."""

    start: int  # index of the first member
    measures: list[PictureMeasures]  # one for each member
    pixels: np.ndarray  # uint8 N,H,W,3 RGB of the model's size; rows of undecodable members are black


class Decoder:
    """Reads and decodes members in threads, and yields batches of fixed size in the order of the members.

    The content of a batch depends on the order of the members alone, never on the speed of the threads. Decoding
    begins when the object is made; at most `BATCHES_AHEAD` batches wait, so memory is bounded. It is a context
    manager.

    Args:
        tar: the members' tar; one on an object store is first copied to local disk, in one read.
        threads: decoding threads; 0: one per core.
        min_face_score: count the faces that are detected with at least this confidence; None: do not count faces.

    Raises:
        UserError: the package that finds faces is not installed.
        DataError: there are members, but the tar does not exist.
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

        cv2.setNumThreads(1)  # every decoding thread already keeps one core busy
        self._preprocess = preprocess
        self._face_finder = None if min_face_score is None else finder(min_face_score)
        self._file = _open_local(tar) if members else None
        starts = range(0, len(members), batch_size)
        self._pending = deque((start, members[start : start + batch_size]) for start in starts)
        self._pool = ThreadPoolExecutor(threads or cores(), thread_name_prefix="decode")
        self._running: deque[tuple[int, np.ndarray, list[Future[list[PictureMeasures]]]]] = deque()
        for _ in range(BATCHES_AHEAD):
            self._submit_batch()

    def __enter__(self) -> Decoder:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        if self._file is not None:
            self._file.close()

    def __iter__(self) -> Iterator[Batch]:
        while self._running:
            start, pixels, futures = self._running.popleft()
            measures = [measured for future in futures for measured in future.result()]
            self._submit_batch()
            yield Batch(start, measures, pixels)

    def _submit_batch(self) -> None:
        if not self._pending or self._file is None:
            return
        start, members = self._pending.popleft()
        pixels = np.empty((len(members), *self._preprocess.size, 3), np.uint8)
        descriptor = self._file.fileno()
        decode = partial(_decode_members, descriptor, preprocess=self._preprocess, face_finder=self._face_finder)
        tasks = [slice(first, first + PICTURES_PER_TASK) for first in range(0, len(members), PICTURES_PER_TASK)]
        futures = [self._pool.submit(decode, members=members[task], out=pixels[task]) for task in tasks]
        self._running.append((start, pixels, futures))


def decode_picture(
    data: bytes, preprocess: Preprocess, out: np.ndarray, face_finder: FaceFinder | None = None
) -> PictureMeasures:
    """Decode one picture into `out`, and measure it. Never raises on bad data.

    A JPEG is decoded at 1/2, 1/4 or 1/8 of its size where that leaves at least the pixels that the model and the
    sharpness measure need. Orientation tags are ignored, as open_clip's own transform ignores them; transparency is
    dropped.

    Args:
        out: uint8 of the model's size and 3; black where the picture cannot be decoded.
    """
    try:
        pixels, (height, width) = _decode(data, preprocess)
        fit_picture(pixels, (height, width), preprocess, out)
        grey = picture_measures.grey_levels(pixels)
        return PictureMeasures(
            width,
            height,
            phash=picture_measures.perceptual_hash(grey),
            sharpness=picture_measures.sharpness(grey),
            thumbnail=picture_measures.thumbnail(grey),
            faces=None if face_finder is None else face_finder.count(pixels),
        )
    except _TooManyPixelsError:
        problem = "too_many_pixels"
    except Exception:  # noqa: BLE001 - decoders raise a dozen kinds of error on hostile bytes, and no picture may end a run
        problem = "undecodable"
    out[:] = 0
    return PictureMeasures(problem=problem)


def decode_pixels(data: bytes, preprocess: Preprocess, crop: Crop | None = None) -> np.ndarray:
    """Decode one picture, or a part of it, to uint8 of `preprocess.size` and 3, RGB.

    Raises ValueError with the picture's problem.
    """
    out = np.empty((3, *preprocess.size), np.uint8).transpose(1, 2, 0)  # laid out as torch's resize gives it
    try:
        pixels, size = _decode(data, preprocess, crop)
        if crop is None:
            fit_picture(pixels, size, preprocess, out)
        else:
            fit_crop(pixels, size, preprocess, crop, out)
    except _TooManyPixelsError:
        raise ValueError("too_many_pixels") from None
    except Exception as error:  # noqa: BLE001 - as in `decode_picture`
        raise ValueError(f"undecodable ({error})") from None
    return out


class _TooManyPixelsError(Exception):
    pass


def _decode(data: bytes, preprocess: Preprocess, crop: Crop | None = None) -> tuple[np.ndarray, tuple[int, int]]:
    """Pixels, uint8 H,W,3 RGB, perhaps reduced; and height and width of the whole picture."""
    import cv2
    from PIL import Image

    try:
        header = Image.open(io.BytesIO(data))
    except Image.DecompressionBombError:
        raise _TooManyPixelsError from None
    width, height = header.size
    if width * height > MAX_PIXELS:
        raise _TooManyPixelsError
    is_whole_jpeg = header.format == "JPEG" and header.mode in ("RGB", "L") and JPEG_END in data[-JPEG_TAIL_BYTES:]
    if not is_whole_jpeg:  # Pillow raises where a file is cut short; OpenCV would paint the missing part grey
        return np.array(header.convert("RGB")), (height, width)
    reduction = jpeg_reduction(height, width, preprocess, crop)
    flag = cv2.IMREAD_COLOR_RGB if reduction == 1 else getattr(cv2, f"IMREAD_REDUCED_COLOR_{reduction}")
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flag | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None:
        raise ValueError("not decoded")
    # OpenCV has no flag for a reduced decode to RGB
    return (pixels if reduction == 1 else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)), (height, width)


def jpeg_reduction(height: int, width: int, preprocess: Preprocess, crop: Crop | None = None) -> int:
    """By how much (8, 4, 2 or 1) a JPEG's sides can be divided while it is decoded, with enough pixels left.

    Args: crop: the part that is wanted, of a picture that is not measured; None: the whole, measured.
    """
    resized_height, resized_width = resized_size(height, width, preprocess)
    parts = (1.0, 1.0) if crop is None else (crop.height, crop.width)
    for reduction in (8, 4, 2):
        left = height // reduction * parts[0], width // reduction * parts[1]
        enough_for_measures = crop is not None or min(height, width) // reduction >= picture_measures.SHARPNESS_SIDE_PX
        if left[0] >= resized_height and left[1] >= resized_width and enough_for_measures:
            return reduction
    return 1


def _decode_members(
    descriptor: int, members: Sequence[Member], preprocess: Preprocess, out: np.ndarray, face_finder: FaceFinder | None
) -> list[PictureMeasures]:
    """Read members from an open tar and decode each into its row of `out`; runs in a thread."""
    measures = []
    for number, member in enumerate(members):
        has_place = member.length > 0 <= member.offset
        data = os.pread(descriptor, member.length, member.offset) if has_place else b""
        if not data or len(data) < member.length:
            out[number] = 0
            measures.append(PictureMeasures(problem="missing_bytes"))
        else:
            measures.append(decode_picture(data, preprocess, out[number], face_finder))
    return measures


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
        slice_name, _ = split_media_tar_name(tar.name)
        remedy = redo_remedy(tar.parent.parent.name, "media", slice_name)
        raise DataError(f"{tar}: no such file, but the media table lists pictures in it. {remedy}") from None
