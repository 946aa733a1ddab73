"""Concepts by embedding: the concept names nearest to a picture or clip, in the space of the corpus's scorer."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import polars as pl
from upath import UPath

from mmdata.config import Score
from mmdata.errors import DataError
from mmdata.fingerprint import fingerprint
from mmdata.select.scores.exact import DOUBT
from mmdata.storage.atomic import publish_bytes

NAMES_PER_CALL = 20_000
_BLOCK_ROWS = 1024
_MARGIN = 8  # candidates beyond the wanted ones; more are sought where these are too alike


def concept_vectors(names: Sequence[str], score: Score, scorer: str, folder: UPath) -> np.ndarray:
    """The text embeddings of concept names, float16 (concepts, dim).

    They are made once and kept in `folder`, in place of another list's.

    Args:
        scorer: fingerprint of the scorer that made the pictures' embeddings.

    Raises:
        DataError: the scorer of corpus.yaml is another one, so that its embeddings do not compare.
    """
    path = folder / f"concepts-{fingerprint(scorer, list(names))}.npy"
    if path.exists():
        with path.open("rb") as file:
            return np.load(file, allow_pickle=False)
    from mmdata.score.scorer import load_scorer

    model = load_scorer(score)
    if model.fingerprint != scorer:
        raise DataError(
            f"select.balance.concepts_by: the parts were scored by {scorer}, and `score` in corpus.yaml is now "
            f"{model.name} ({model.fingerprint}): concept names cannot be compared with their embeddings. Remedy: set "
            "score.model and score.precision to what scored the parts, or `mmdata build` with the new ones first."
        )
    starts = range(0, len(names), NAMES_PER_CALL)
    parts = [model.embed_texts(names[start : start + NAMES_PER_CALL]).astype(np.float16) for start in starts]
    vectors = np.concatenate(parts)
    buffer = io.BytesIO()
    np.save(buffer, vectors)
    publish_bytes(path, buffer.getvalue())
    for earlier in folder.glob("concepts-*.npy"):
        if earlier.name != path.name:
            earlier.unlink(missing_ok=True)
    return vectors


def nearest_concepts(embeddings: np.ndarray, vectors: np.ndarray, top_k: int) -> np.ndarray:
    """The `top_k` concepts of highest cosine with each row; of equal ones the first of the list.

    Candidates come from float32 products. What decides is the product in float64, which is exact: products of fp16
    numbers of unit vectors are multiples of 2^-48. So neither BLAS, nor blocks, nor the order of rows decides.

    Args:
        embeddings: float16 (n, dim), not zero; may be a memory map.
        vectors: float16 (concepts, dim), not zero.

    Returns:
        uint32 (n, min(top_k, concepts)), places among the concepts, ascending.
    """
    wanted = min(top_k, len(vectors))
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
    unit = (vectors / norms[:, None]).astype(np.float32)
    nearest = np.empty((len(embeddings), wanted), np.uint32)
    for start in range(0, len(embeddings), _BLOCK_ROWS):
        block = np.asarray(embeddings[start : start + _BLOCK_ROWS])
        nearest[start : start + len(block)] = _nearest_of_block(block, vectors, unit, norms, wanted)
    return nearest


def _nearest_of_block(
    block: np.ndarray, vectors: np.ndarray, unit: np.ndarray, norms: np.ndarray, wanted: int
) -> np.ndarray:
    import faiss

    queries = block.astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    nearest = np.empty((len(block), wanted), np.int64)
    rows, depth = np.arange(len(block)), min(wanted + _MARGIN, len(vectors))
    while len(rows):
        scores, places = faiss.knn(queries[rows], unit, depth, faiss.METRIC_INNER_PRODUCT)
        least = scores[:, wanted - 1] - 2 * DOUBT
        is_sure = least > scores[:, wanted] if depth > wanted else np.ones(len(rows), bool)
        nearest[rows[is_sure]] = np.sort(places[is_sure, :wanted], axis=1)
        close = ~is_sure & ((least > scores[:, -1]) | (depth == len(vectors)))  # all rivals are among the candidates
        rivals = places[close]
        exact = np.einsum("nd,nkd->nk", block[rows[close]], vectors[rivals], dtype=np.float64) / norms[rivals]
        order = np.lexsort((rivals, -exact), axis=1)[:, :wanted]
        nearest[rows[close]] = np.sort(np.take_along_axis(rivals, order, axis=1), axis=1)
        rows, depth = rows[~is_sure & ~close], min(depth * 4, len(vectors))
    return nearest


def concepts_column(rows: np.ndarray, nearest: np.ndarray, length: int) -> pl.Series:
    """The concepts of a frame of `length` rows as List(UInt32), null but for `rows` (ascending)."""
    found = pl.DataFrame({"row": rows, "concepts": pl.Series(nearest).cast(pl.List(pl.UInt32))})
    every = pl.DataFrame({"row": np.arange(length)})
    return every.join(found, on="row", how="left", maintain_order="left")["concepts"]
