"""Near neighbours among pictures: hard negatives for `match`, similar pictures for `reference_image`.

FAISS finds candidates by inner product of unit embeddings: exactly up to FLAT_LIMIT samples, above it with an inverted
file of 8-bit codes. Candidates are then ranked in float64 from the stored float16 embeddings, ties by uid, so that the
choice does not depend on threads or on a BLAS.

What counts as similar, and as another meaning, is read off random pairs of the same samples (`Limits`), since cosines
of different scorers do not compare.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from mmdata.instruct.caption_prints import CaptionPrints, overlap

FLAT_LIMIT = 50_000
CANDIDATES = 24
MAX_CAPTION_OVERLAP = 0.5
RANDOM_PAIRS = 20_000
MIN_REFERENCE_COSINE = 0.3
REFERENCE_PERCENTILE = 99.5
CAPTION_PERCENTILE = 99.0
_BLOCK = 1024


@dataclass(frozen=True, slots=True)
class Neighbours:
    """For each sample the row of its neighbour, or -1 if none fits.

    Args:
        negative: the nearest picture whose caption says something else, and fits this picture clearly less than its
            own caption does: int64 (n,).
        reference: the nearest picture that is no duplicate and has another caption: int64 (n,).
    """

    negative: np.ndarray
    reference: np.ndarray


@dataclass(frozen=True, slots=True)
class Captions:
    """What is known of the captions of n pictures.

    Args:
        prints: hashes of their words.
        vectors: unit text embeddings by the scorer, float16 (m, dim); may be a memory map.
        vector_row: row of each caption in `vectors`, int64 (n,); -1: it has none.
        language: a number for each language, int64 (n,).
    """

    prints: CaptionPrints
    vectors: np.ndarray
    vector_row: np.ndarray
    language: np.ndarray


@dataclass(frozen=True, slots=True)
class Limits:
    """What is usual among random pairs of the samples.

    Args:
        reference: pictures of at least this cosine resemble each other: the 99.5th percentile, at least 0.3.
        caption: captions of at most this cosine say different things: the 99th percentile.
        margin: a caption fits a picture clearly less than another if its cosine is lower by this much: the standard
            deviation of the cosines of pictures and captions of other pictures.
    """

    reference: float
    caption: float
    margin: float


def no_neighbours(count: int) -> Neighbours:
    """No neighbours for `count` samples."""
    return Neighbours(np.full(count, -1, np.int64), np.full(count, -1, np.int64))


def limits_of(vectors: np.ndarray, captions: Captions, order: np.ndarray) -> Limits:
    """The limits, from at most RANDOM_PAIRS pairs of samples.

    Args:
        vectors: unit embeddings of the pictures, float16 (n, dim).
        order: the samples in a random order, int64 (n,); each is paired with the one after it.
    """
    order = order[: RANDOM_PAIRS + 1]
    first, second = order[:-1], order[1:]
    pictures = _cosines(vectors, first, vectors, second[:, None])
    has_text = (captions.vector_row[first] >= 0) & (captions.vector_row[second] >= 0)
    first, second = first[has_text], second[has_text]
    texts = captions.vectors, captions.vector_row[second][:, None]
    between_captions = _cosines(captions.vectors, captions.vector_row[first], *texts)
    across = _cosines(vectors, first, *texts)
    return Limits(
        reference=max(MIN_REFERENCE_COSINE, _percentile(pictures, REFERENCE_PERCENTILE)),
        caption=_percentile(between_captions, CAPTION_PERCENTILE),
        margin=float(across.std()) if len(across) else 0.0,
    )


def find_neighbours(vectors: np.ndarray, captions: Captions, limits: Limits, duplicate_cosine: float) -> Neighbours:
    """Find the hard negative and the similar picture of each sample, among the same samples.

    Both have a caption in the sample's own language, so that a language never gives an answer away. A sample whose
    caption has no text embedding has no negative, for nothing then tells what the captions mean.

    Args:
        vectors: unit embeddings of the pictures, float16 (n, dim), in uid order; may be a memory map.
        captions: in the same order.
        duplicate_cosine: pictures with at least this cosine count as the same picture and are skipped.
    """
    count, prints = len(vectors), captions.prints
    neighbours = no_neighbours(count)
    if count < 2:
        return neighbours
    for start, candidates in _candidates(vectors, min(CANDIDATES, count)):
        rows = np.arange(start, start + len(candidates))
        queries = rows[:, None]
        cosine = _cosines(vectors, rows, vectors, candidates)
        usable = (candidates >= 0) & (candidates != queries) & (cosine < duplicate_cosine)
        usable &= captions.language[candidates] == captions.language[queries]
        other = usable & (prints.identity[candidates] != 0) & (prints.identity[candidates] != prints.identity[queries])
        apart = other & (overlap(prints.words[queries], prints.words[candidates]) < MAX_CAPTION_OVERLAP)
        apart &= _says_something_else(vectors, captions, limits, rows, candidates)
        neighbours.negative[rows] = _nearest(candidates, cosine, apart)
        neighbours.reference[rows] = _nearest(candidates, cosine, other & (cosine >= limits.reference))
    return neighbours


def _says_something_else(
    vectors: np.ndarray, captions: Captions, limits: Limits, rows: np.ndarray, candidates: np.ndarray
) -> np.ndarray:
    """Whether a candidate's caption means something else and fits the row's picture clearly less: bool (m, k)."""
    own, theirs = captions.vector_row[rows], captions.vector_row[candidates]
    between = _cosines(captions.vectors, own, captions.vectors, theirs)
    fit_of_own = _cosines(vectors, rows, captions.vectors, own[:, None])
    fit_of_theirs = _cosines(vectors, rows, captions.vectors, theirs)
    has_text = (own >= 0)[:, None] & (theirs >= 0)
    return has_text & (between <= limits.caption) & (fit_of_theirs <= fit_of_own - limits.margin)


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


def _cosines(ours: np.ndarray, rows: np.ndarray, theirs: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Cosines of m rows of `ours` with k rows of `theirs` each, rounded to 9 places: float64 (m, k)."""
    out = np.zeros(candidates.shape, np.float64)
    if not len(rows) or not len(theirs):  # no caption has an embedding
        return out
    mine = np.asarray(ours[rows], np.float64)
    for column in range(candidates.shape[1]):
        other = np.asarray(theirs[candidates[:, column]], np.float64)
        scale = np.linalg.norm(mine, axis=1) * np.linalg.norm(other, axis=1)
        out[:, column] = (mine * other).sum(axis=1) / np.maximum(scale, 1e-12)
    return np.round(out, 9)


def _percentile(cosines: np.ndarray, percent: float) -> float:
    return float(np.percentile(cosines, percent)) if cosines.size else 1.0


def _nearest(candidates: np.ndarray, cosine: np.ndarray, fits: np.ndarray) -> np.ndarray:
    """The fitting candidate of highest cosine; on a tie the lower row, hence the lower uid; -1 if none fits."""
    best = np.where(fits, cosine, -np.inf).max(axis=1, keepdims=True)
    tied = fits & (cosine == best)
    chosen = np.where(tied, candidates, np.iinfo(np.int64).max).min(axis=1)
    return np.where(fits.any(axis=1), chosen, -1)
