"""The image-based filter of DataComp (Gadre et al. 2023): keep what lies in a cluster near a target set."""

from __future__ import annotations

import numpy as np
from upath import UPath

from mmdata.select.clusters import Clusters, assign_clusters, read_clusters, train_clusters, write_clusters

FILE = "target_clusters.npz"
"""In the folder of a release, the clusters of the rule, where it has its own."""


def near_target(cluster: np.ndarray, centroids: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Which rows lie in a cluster that is the nearest one of some target vector, bool (n,).

    Args:
        cluster: int32 (n,), the nearest centroid of each row.
        centroids: float16 (k, d).
        target: float16 (m, d).
    """
    return np.isin(cluster, np.unique(assign_clusters(target, centroids)))


def keep_own_clusters(
    folder: UPath,
    parent: UPath | None,
    embeddings: np.ndarray,
    high: np.ndarray,
    low: np.ndarray,
    scorer: str,
    count: int,
    seed: int,
) -> Clusters:
    """Clusters of the rule's own number: the parent release's while they fit, else new ones; written to `folder`.

    Args:
        parent: the folder of the parent release.
        embeddings: float16 (n, d).
        high, low: the halves of the uids.
        count: `near_target.clusters`.
    """
    clusters = read_clusters(parent / FILE) if parent else None
    if clusters is None or not clusters.fits(scorer, len(embeddings), count):
        clusters = train_clusters(embeddings, high, low, scorer, count, seed)
    write_clusters(folder / FILE, clusters)
    return clusters
