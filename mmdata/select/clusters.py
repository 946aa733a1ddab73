"""k-means clusters of the embeddings: trained once, stored with the release, and used again by later releases."""

from __future__ import annotations

import io
import math
import zipfile
from dataclasses import dataclass

import numpy as np
from upath import UPath

from mmdata.errors import DataError
from mmdata.samples import hash_words
from mmdata.select.scores.exact import DOUBT
from mmdata.storage.atomic import publish_bytes

POINTS_PER_CENTROID = 256
_ITERATIONS = 20
_BLOCK_ROWS = 4096


OUTGROWN = 10
"""Centroids are kept until the corpus has this many times the rows that they were trained on. New centroids mean a new
split, so they are rare; old ones make clusters large, and comparing within a cluster slow."""


@dataclass(frozen=True, slots=True)
class Clusters:
    """Centroids, and what they were trained on.

    Args:
        centroids: float16, (k, dim). Half precision on purpose: products of fp16 numbers are exact in float64, so
            which centroid is nearest does not depend on the machine, its BLAS or the order of rows.
        scorer: fingerprint of the model whose embeddings they were trained on.
        rows: number of embeddings at the time.
        configured: `dedup.clusters` at the time; 0 for null.
    """

    centroids: np.ndarray
    scorer: str
    rows: int
    configured: int

    def fits(self, scorer: str, rows: int, configured: int | None) -> bool:
        """Whether a later release may use these clusters, so that its cluster numbers mean the same."""
        return self.scorer == scorer and self.configured == (configured or 0) and rows <= OUTGROWN * self.rows


def cluster_count(rows: int, configured: int | None) -> int:
    """Number of clusters: as configured, else about the square root of the rows; for small corpora a tenth of them.

    max(sqrt(n), min(n / 10, 256)), and never more than there are rows.
    """
    wanted = configured or round(max(math.sqrt(rows), min(rows / 10, 256)))
    return min(rows, max(1, wanted))


def training_rows(high: np.ndarray, low: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    """Rows to train centroids on: those with the lowest hashes, at most 256 for each centroid, in uid order."""
    limit = clusters * POINTS_PER_CENTROID
    if len(high) <= limit:
        return np.arange(len(high))
    return np.sort(np.argsort(hash_words(high, low, seed, "clusters"), kind="stable")[:limit])


def train_clusters(
    embeddings: np.ndarray, high: np.ndarray, low: np.ndarray, scorer: str, configured: int | None, seed: int
) -> Clusters:
    """Train new clusters on a draw of the rows.

    Args:
        embeddings: float16, (n, dim); may be a memory map.
        high, low: the halves of the rows' uids.
        scorer: fingerprint of the model that made the embeddings.
        configured: `dedup.clusters`.
    """
    count = cluster_count(len(embeddings), configured)
    points = embeddings[training_rows(high, low, count, seed)]
    return Clusters(train_centroids(points, count, seed), scorer, len(embeddings), configured or 0)


def train_centroids(points: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    """Spherical k-means by FAISS on one thread, so that the same points give the same centroids.

    Args:
        points: float16, (n, dim), n >= clusters.

    Returns:
        float16, (clusters, dim), unit length.
    """
    import faiss

    if clusters == 1:
        mean = points.astype(np.float64).mean(axis=0, keepdims=True)
        return (mean / max(float(np.linalg.norm(mean)), 1e-12)).astype(np.float16)
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        kmeans = faiss.Kmeans(
            points.shape[1],
            clusters,
            niter=_ITERATIONS,
            seed=seed & 0x7FFFFFFF,
            spherical=True,
            min_points_per_centroid=1,
            max_points_per_centroid=POINTS_PER_CENTROID,
        )
        kmeans.train(np.ascontiguousarray(points, np.float32))
        trained = np.asarray(kmeans.centroids)
    finally:
        faiss.omp_set_num_threads(threads)
    return trained.astype(np.float16)


def assign_clusters(embeddings: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """The nearest centroid of each row by inner product; on a tie, the lowest number.

    Args:
        embeddings: float16, (n, dim); may be a memory map, it is read in blocks.

    Returns:
        int32, (n,).
    """
    clusters_of_rows = np.empty(len(embeddings), np.int32)
    wide = np.ascontiguousarray(centroids.T, np.float32)
    exact = centroids.T.astype(np.float64)
    for start in range(0, len(embeddings), _BLOCK_ROWS):
        block = np.asarray(embeddings[start : start + _BLOCK_ROWS])
        products = block.astype(np.float32) @ wide
        nearest = products.argmax(axis=1)
        best = products[np.arange(len(block)), nearest]
        doubtful = np.flatnonzero((products >= (best - DOUBT)[:, None]).sum(axis=1) > 1)
        if len(doubtful):
            nearest[doubtful] = (block[doubtful].astype(np.float64) @ exact).argmax(axis=1)
        clusters_of_rows[start : start + len(block)] = nearest
    return clusters_of_rows


def write_clusters(path: UPath, clusters: Clusters) -> None:
    """Publish as `clusters.npz`: centroids, scorer, rows, configured. The same clusters give the same bytes."""
    buffer = io.BytesIO()
    np.savez(
        buffer,
        centroids=clusters.centroids,
        scorer=np.array(clusters.scorer),
        rows=np.array(clusters.rows),
        configured=np.array(clusters.configured),
    )
    publish_bytes(path, buffer.getvalue())


def read_clusters(path: UPath) -> Clusters | None:
    """The clusters of a release; None if it has none (no embeddings).

    Raises:
        DataError: the file exists but cannot be read.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        with np.load(io.BytesIO(data)) as held:
            return Clusters(held["centroids"], str(held["scorer"]), int(held["rows"]), int(held["configured"]))
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not a cluster file ({error}). Remedy: delete it; new clusters are trained.") from None
