"""Reads the user's pictures that samples are compared with: target sets and evaluation sets.

They are decoded as the download decodes what it stores: upright, in sRGB, transparency on white.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from upath import UPath

from mmdata.media.image_header import lean_body, read_header
from mmdata.media.image_to_bmp import as_bmp
from mmdata.observe import logs
from mmdata.score.decode import MAX_PIXELS, decode_picture
from mmdata.score.preprocess import Preprocess
from mmdata.score.scorer import ClipScorer
from mmdata.web.failures import FetchError

_log = logs.logger(__name__)

READING_VERSION = 2
"""Raise it when pictures are decoded otherwise: what was made of them and kept in workspaces is then made again."""

_PICTURES_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class ReferencePictures:
    """What is computed of pictures, in the order of their files.

    Args:
        sha256: of every file, the first 16 hex digits, uint64 (files,).
        phash: perceptual hashes of those that can be decoded, uint64 (n,).
        vectors: their embeddings, float16 (n, d).
    """

    sha256: np.ndarray
    phash: np.ndarray
    vectors: np.ndarray


def read_pictures(files: Sequence[UPath], model: ClipScorer, kind: str) -> ReferencePictures:
    """Hash and embed pictures. Those that cannot be decoded are logged, and have a `sha256` only.

    Args:
        kind: of the set, for the log.
    """
    digests, hashes, vectors = [], [], [np.empty((0, model.dim), np.float16)]
    for start in range(0, len(files), _PICTURES_AT_ONCE):
        pixels = []
        for path in files[start : start + _PICTURES_AT_ONCE]:
            data = path.read_bytes()
            digests.append(int(hashlib.sha256(data).hexdigest()[:16], 16))
            out = np.empty((*model.preprocess.size, 3), np.uint8)
            try:
                hashes.append(_decoded(data, model.preprocess, out))
                pixels.append(out)
            except FetchError as failure:
                _log.warning("a picture cannot be read", set=kind, picture=str(path), error=str(failure))
        if pixels:
            vectors.append(model.embed_images(np.stack(pixels)).astype(np.float16))
    return ReferencePictures(np.array(digests, np.uint64), np.array(hashes, np.uint64), np.concatenate(vectors))


def _decoded(data: bytes, preprocess: Preprocess, out: np.ndarray) -> int:
    """Decode a picture into `out`, as the download would store it. Returns its perceptual hash.

    Raises:
        FetchError: it is no picture, is damaged, or has too many pixels.
    """
    lean = lean_body(data)
    header = read_header(lean)
    if header.pixels > MAX_PIXELS:
        raise FetchError("bomb", f"{header.width} x {header.height} pixels are over the limit of {MAX_PIXELS:,}")
    bmp = as_bmp(lean, header, 1)
    measures = decode_picture(lean if bmp is None else bmp, preprocess, out)
    if measures.phash is None:
        raise FetchError(str(measures.problem), "the picture cannot be decoded")
    return measures.phash
