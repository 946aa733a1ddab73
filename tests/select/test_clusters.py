"""Clusters of the embeddings: training, the nearest centroid, and the file that the next release reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from upath import UPath

from mmdata.errors import DataError
from mmdata.select.clusters import (
    Clusters,
    assign_clusters,
    cluster_count,
    read_clusters,
    train_centroids,
    training_rows,
    write_clusters,
)
from tests.support.selecting import points


@settings(max_examples=20)
@given(st.randoms(), st.integers(1, 40))
def test_the_nearest_centroid_does_not_depend_on_company_or_order(random, rows: int) -> None:
    embeddings = np.array(points(rows, dim=16, seed=rows))
    centroids = np.array(points(6, dim=16, seed=99))
    together = assign_clusters(embeddings, centroids)
    order = random.sample(range(rows), rows)
    assert assign_clusters(embeddings[order], centroids).tolist() == together[order].tolist()
    assert [int(assign_clusters(embeddings[i : i + 1], centroids)[0]) for i in range(rows)] == together.tolist()


def test_equally_near_centroids_go_to_the_lowest_number() -> None:
    centroids = np.array(points(4, dim=64))
    doubled = np.concatenate([centroids, centroids[::-1]])
    assert assign_clusters(centroids, doubled).tolist() == [0, 1, 2, 3]


def test_the_same_points_train_the_same_centroids() -> None:
    embeddings = np.array(points(500, dim=16))
    first, second = train_centroids(embeddings, 9, seed=3), train_centroids(embeddings, 9, seed=3)
    assert first.dtype == np.float16
    assert first.shape == (9, 16)
    assert (first == second).all()
    assert train_centroids(embeddings, 1, seed=0).shape == (1, 16)


def test_training_points_are_chosen_by_hash_and_not_by_place() -> None:
    rng = np.random.default_rng(0)
    high, low = rng.integers(0, 2**64, (2, 5000), dtype=np.uint64)
    chosen = training_rows(high, low, 4, seed=0)
    assert len(chosen) == 4 * 256
    order = rng.permutation(5000)
    again = training_rows(high[order], low[order], 4, seed=0)
    assert set(high[order][again]) == set(high[chosen])
    assert training_rows(high[:100], low[:100], 4, seed=0).tolist() == list(range(100))


@pytest.mark.parametrize(
    ("rows", "configured", "count"),
    [(0, None, 0), (1, None, 1), (40, None, 6), (1500, None, 150), (1_000_000, None, 1000), (50, 8, 8), (5, 8, 5)],
)
def test_cluster_count_grows_as_the_square_root(rows: int, configured: int | None, count: int) -> None:
    assert cluster_count(rows, configured) == count


def test_centroids_are_taken_over_until_the_corpus_outgrows_them_or_the_scorer_changes() -> None:
    held = Clusters(np.zeros((3, 4), np.float16), "s", 100, 0)
    assert held.fits("s", 1000, None)
    assert held.fits("s", 10, None)
    assert not held.fits("s", 1001, None)
    assert not held.fits("other", 100, None)
    assert not held.fits("s", 100, 3)


def test_clusters_come_back_as_written_and_damage_is_named(tmp_path: Path) -> None:
    path = UPath(tmp_path / "clusters.npz")
    assert read_clusters(path) is None
    held = Clusters(np.array(points(3)), "s", 100, 3)
    write_clusters(path, held)
    first = path.read_bytes()
    write_clusters(path, held)
    assert path.read_bytes() == first
    again = read_clusters(path)
    assert again is not None
    assert (again.centroids == held.centroids).all()
    assert (again.scorer, again.rows, again.configured) == ("s", 100, 3)
    path.write_bytes(first[:100])
    with pytest.raises(DataError, match=r"clusters\.npz"):
        read_clusters(path)
