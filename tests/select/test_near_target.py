"""DataComp's image-based filter, against its definition written out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from upath import UPath

from mmdata.select.clusters import assign_clusters
from mmdata.select.near_target import FILE, keep_own_clusters, near_target
from tests.support.pair_vectors import unit_vectors


def test_what_is_kept_lies_in_the_nearest_cluster_of_some_target() -> None:
    centroids, points, target = unit_vectors(20, seed=1), unit_vectors(300, seed=2), unit_vectors(6, seed=3)
    cluster = assign_clusters(points, centroids)
    kept = near_target(cluster, centroids, target)
    nearest = {int(np.argmax(centroids.astype(float) @ vector.astype(float))) for vector in target}
    assert kept.tolist() == [int(number) in nearest for number in cluster]
    assert 0 < kept.sum() < 300


def test_the_clusters_of_the_rule_are_kept_while_they_fit(tmp_path: Path) -> None:
    points = unit_vectors(200, seed=2)
    uids = np.arange(200, dtype=np.uint64)
    one, two, three = (UPath(tmp_path / name) for name in ("one", "two", "three"))
    first = keep_own_clusters(one, None, points[:150], uids[:150], uids[:150], "scorer", 7, 0)
    again = keep_own_clusters(two, one, points, uids, uids, "scorer", 7, 0)
    assert (first.centroids == again.centroids).all()
    assert (one / FILE).read_bytes() == (two / FILE).read_bytes()
    assert keep_own_clusters(three, one, points, uids, uids, "scorer", 9, 0).centroids.shape == (9, 16)
