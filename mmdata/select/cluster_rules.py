"""The rules by cluster: nearness to a target set, semantic duplicates, and density-based pruning."""

from __future__ import annotations

import numpy as np
import polars as pl
from upath import UPath

from mmdata.select.clusters import Clusters, assign_clusters, read_clusters, train_clusters, write_clusters
from mmdata.select.cuts import DensityBounds
from mmdata.select.decide import NO_CLUSTER, drop_followers, is_kind
from mmdata.select.density import PRUNED, centroid_distances, prune
from mmdata.select.embeddings import gather_embeddings
from mmdata.select.near_target import keep_own_clusters, near_target
from mmdata.select.scores.targets import load_target
from mmdata.select.selection_inputs import SelectionInputs
from mmdata.select.semantic import comparison_groups, semantic_leaders
from mmdata.select.verdicts import Verdicts

FAR_FROM_TARGET = "filter:near_target"


def apply_cluster_rules(
    inputs: SelectionInputs,
    frame: pl.DataFrame,
    verdicts: Verdicts,
    rank: np.ndarray,
    folder: UPath,
    parent_folder: UPath | None,
    bounds: DensityBounds | None,
) -> tuple[np.ndarray, DensityBounds | None]:
    """Assign the kept rows to clusters, and drop what is far from the target, repeats the meaning, or is too dense.

    Args:
        verdicts: what is dropped is added to it.
        rank: of every candidate, the best first.
        folder: of the release; its clusters are written there.
        parent_folder: of the parent release, whose clusters are used again while they fit.
        bounds: of density-based pruning in the parent release.

    Returns:
        int32, one a candidate, `NO_CLUSTER` where a row is dropped or has no embedding; and the bounds of pruning.
    """
    select, seed = inputs.corpus.select, inputs.corpus.seed
    clusters = read_clusters(parent_folder / "clusters.npz") if parent_folder else None
    cluster = np.full(len(frame), NO_CLUSTER, np.int32)
    kept = verdicts.kept()
    place, row = frame["place"].gather(kept).to_numpy(), frame["row"].gather(kept).to_numpy()
    advance = inputs.embedding_counter(len(kept))
    with gather_embeddings(inputs.tables("features"), place, row, advance) as (embeddings, positions):
        rows = kept[positions]
        if select.filter.near_target is not None:  # pictures without a vector are near nothing
            lacking = np.setdiff1d(kept, rows, assume_unique=True)
            pictured = is_kind(frame, "image") | is_kind(frame, "video")
            verdicts.drop(lacking[pictured[lacking]], FAR_FROM_TARGET)
        if len(rows) > 0:
            wanted = select.dedup.clusters
            high, low = frame["uid_high"].gather(rows).to_numpy(), frame["uid_low"].gather(rows).to_numpy()
            if clusters is None or not clusters.fits(inputs.scorer, len(rows), wanted):
                clusters = train_clusters(embeddings, high, low, inputs.scorer, wanted, seed)
            cluster[rows] = assign_clusters(embeddings, clusters.centroids)
            if select.filter.near_target is not None:
                is_near = _near_target(inputs, embeddings, cluster[rows], clusters, high, low, folder, parent_folder)
                verdicts.drop(rows[~is_near], FAR_FROM_TARGET)
            if select.dedup.semantic_eps is not None:
                group = comparison_groups(cluster[rows], is_kind(frame, "video")[rows], frame["words"].gather(rows))
                group[verdicts.codes[rows] != 0] = NO_CLUSTER
                leaders = semantic_leaders(embeddings, group, rank[rows], select.dedup.semantic_eps)
                drop_followers(verdicts, rows, leaders, "duplicate:semantic")
            if select.density is not None:
                left = np.flatnonzero(verdicts.codes[rows] == 0)
                of_left = cluster[rows[left]]
                distance = centroid_distances(embeddings, left, of_left, clusters.centroids)
                pruned = prune(distance, of_left, clusters.centroids, high[left], low[left], select.density, bounds)
                verdicts.drop(rows[left[~pruned.keep]], PRUNED)
                bounds = pruned.bounds
    if clusters is not None:
        write_clusters(folder / "clusters.npz", clusters)
    return cluster, bounds if select.density is not None else None


def _near_target(
    inputs: SelectionInputs,
    embeddings: np.ndarray,
    cluster: np.ndarray,
    clusters: Clusters,
    high: np.ndarray,
    low: np.ndarray,
    folder: UPath,
    parent_folder: UPath | None,
) -> np.ndarray:
    """Which rows lie near the target of `filter.near_target`, by the clusters of the release or by its own."""
    rule = inputs.corpus.select.filter.near_target
    assert rule is not None
    if rule.clusters is not None:
        seed = inputs.corpus.seed
        clusters = keep_own_clusters(folder, parent_folder, embeddings, high, low, inputs.scorer, rule.clusters, seed)
        cluster = assign_clusters(embeddings, clusters.centroids)
    score, width = inputs.corpus.score, embeddings.shape[1]
    target = load_target(inputs.workspace, rule.target, score, inputs.scorer, width)
    return near_target(cluster, clusters.centroids, target.pictures)
