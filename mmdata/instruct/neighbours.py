"""Near neighbours among pictures: hard negatives for `match`, similar pictures for `reference_image`.

FAISS finds candidates by inner product of unit embeddings: exactly up to FLAT_LIMIT samples, above it with an inverted
file of 8-bit codes. Candidates are then ranked in float64 from the stored float16 embeddings, ties by uid, so that the
choice does not depend on threads or on a BLAS.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

FLAT_LIMIT = 50_000
CANDIDATES = 24
MIN_REFERENCE_COSINE = 0.3
MAX_CAPTION_OVERLAP = 0.5
MASK_WORDS = 4  # 4 x 64 bits
_BLOCK = 1024
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W_]+")


@dataclass(frozen=True, slots=True)
class Neighbours:
    """For each sample the row of its neighbour, or -1 if none fits.

    Args:
        negative: the nearest picture whose caption says something else: int64 (n,).
        reference: the nearest picture that is no duplicate and has another caption: int64 (n,).
    """

    negative: np.ndarray
    reference: np.ndarray


@dataclass(frozen=True, slots=True)
class CaptionPrints:
    """Short hashes of captions, by which pairs are compared without reading the captions again.

    Args:
        identity: of the words in order: uint64 (n,); 0 for a caption without words.
        words: a Bloom filter of the set of words: uint64 (n, 4).
    """

    identity: np.ndarray
    words: np.ndarray


def caption_prints(captions: Iterable[str | None], count: int) -> CaptionPrints:
    """Hash captions. Case, punctuation and spacing are ignored; a CJK character counts as a word."""
    identity = np.zeros(count, np.uint64)
    words = np.zeros((count, MASK_WORDS), np.uint64)
    for number, caption in enumerate(captions):
        caption_words = _WORD.findall((caption or "").casefold())
        if not caption_words:
            continue
        digest = hashlib.blake2b(" ".join(caption_words).encode(), digest_size=8).digest()
        identity[number] = int.from_bytes(digest, "little") or 1
        for word in set(caption_words):
            bit = zlib.crc32(word.encode()) % (64 * MASK_WORDS)
            words[number, bit >> 6] |= np.uint64(1 << (bit & 63))
    return CaptionPrints(identity, words)


def no_neighbours(count: int) -> Neighbours:
    """No neighbours for `count` samples."""
    return Neighbours(np.full(count, -1, np.int64), np.full(count, -1, np.int64))


def find_neighbours(vectors: np.ndarray, prints: CaptionPrints, duplicate_cosine: float) -> Neighbours:
    """Find the hard negative and the similar picture of each sample, among the same samples.

    Args:
        vectors: unit embeddings, float16 (n, dim), in uid order; may be a memory map.
        prints: of the captions, in the same order.
        duplicate_cosine: pictures with at least this cosine count as the same picture and are skipped.
    """
    count = len(vectors)
    neighbours = no_neighbours(count)
    if count < 2:
        return neighbours
    for start, candidates in _candidates(vectors, min(CANDIDATES, count)):
        queries = np.arange(start, start + len(candidates))[:, None]
        cosine = np.round(_cosines(vectors, queries[:, 0], candidates), 9)
        usable = (candidates >= 0) & (candidates != queries) & (cosine < duplicate_cosine)
        has_words = prints.identity[candidates] != 0
        other = usable & has_words & (prints.identity[candidates] != prints.identity[queries])
        apart = other & (_overlap(prints.words[queries], prints.words[candidates]) < MAX_CAPTION_OVERLAP)
        similar = other & (cosine >= MIN_REFERENCE_COSINE)
        neighbours.negative[queries[:, 0]] = _nearest(candidates, cosine, apart)
        neighbours.reference[queries[:, 0]] = _nearest(candidates, cosine, similar)
    return neighbours


def _candidates(vectors: np.ndarray, k: int) -> Iterable[tuple[int, np.ndarray]]:
    """Yield (first row, candidate rows int64 (block, k)), block by block; -1 where there are fewer."""
    import faiss

    count, dim = vectors.shape
    lists = int(min(65_536, 4 * count**0.5))
    index = faiss.index_factory(dim, "Flat" if count < FLAT_LIMIT else f"IVF{lists},SQ8", faiss.METRIC_INNER_PRODUCT)
    if not index.is_trained:
        sample = np.linspace(0, count - 1, min(count, 48 * lists)).astype(
            np.int64
        )  # rows are in the order of uids, which are hashes: any spread is random
        index.train(np.ascontiguousarray(vectors[sample], np.float32))
        faiss.extract_index_ivf(index).nprobe = max(16, lists // 64)
    for start in range(0, count, 65_536):
        index.add(np.ascontiguousarray(vectors[start : start + 65_536], np.float32))
    for start in range(0, count, _BLOCK):
        _, neighbours = index.search(np.ascontiguousarray(vectors[start : start + _BLOCK], np.float32), k)
        yield start, neighbours


def _cosines(vectors: np.ndarray, queries: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Cosines of each row with its candidates, float64 (m, k)."""
    mine = np.asarray(vectors[queries], np.float64)
    out = np.empty(candidates.shape, np.float64)
    for column in range(candidates.shape[1]):
        theirs = np.asarray(vectors[candidates[:, column]], np.float64)
        scale = np.linalg.norm(mine, axis=1) * np.linalg.norm(theirs, axis=1)
        out[:, column] = (mine * theirs).sum(axis=1) / np.maximum(scale, 1e-12)
    return out


def _overlap(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Share of common words (Jaccard index), estimated from the Bloom filters: float64 (m, k)."""
    shared = np.bitwise_count(ours & theirs).sum(axis=-1, dtype=np.int64)
    either = np.bitwise_count(ours | theirs).sum(axis=-1, dtype=np.int64)
    return shared / np.maximum(either, 1)


def _nearest(candidates: np.ndarray, cosine: np.ndarray, fits: np.ndarray) -> np.ndarray:
    """The fitting candidate of highest cosine; on a tie the lower row, hence the lower uid; -1 if none fits."""
    best = np.where(fits, cosine, -np.inf).max(axis=1, keepdims=True)
    tied = fits & (cosine == best)
    chosen = np.where(tied, candidates, np.iinfo(np.int64).max).min(axis=1)
    return np.where(fits.any(axis=1), chosen, -1)
