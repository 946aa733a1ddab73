"""Density-based pruning against its formulas, written out, and its bounds over releases."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.config.select_scores import Density
from mmdata.select import density
from mmdata.select.clusters import assign_clusters
from mmdata.select.density import Pruned, centroid_distances, kept_counts, mean_distances, neighbour_distances, prune
from tests.support.pair_vectors import unit_vectors

SIZES = st.lists(st.integers(0, 30), min_size=1, max_size=8)


def pruned(points: np.ndarray, centroids: np.ndarray, settings: Density, parent: Pruned | None = None) -> Pruned:
    cluster = assign_clusters(points, centroids)
    distance = centroid_distances(points, np.arange(len(points)), cluster, centroids)
    uids = np.arange(len(points), dtype=np.uint64)
    return prune(distance, cluster, centroids, uids * 0, uids, settings, parent and parent.bounds)


def test_complexity_is_the_mean_distance_within_times_the_mean_distance_to_the_nearest_centroids() -> None:
    centroids, points = unit_vectors(30, seed=1), unit_vectors(500, seed=2)
    cluster = assign_clusters(points, centroids)
    distance = centroid_distances(points, np.arange(500), cluster, centroids)
    wide, wide_points = centroids.astype(float), points.astype(float)
    within, between = mean_distances(cluster, distance, 30), neighbour_distances(centroids)
    for number in range(30):
        members = wide_points[cluster == number]
        assert within[number] == pytest.approx(np.mean([1 - wide[number] @ row for row in members]))
        others = sorted(1 - wide[number] @ wide[other] for other in range(30) if other != number)
        assert between[number] == pytest.approx(np.mean(others[: density.NEIGHBOURS]))
    assert neighbour_distances(centroids[:1]).tolist() == [0.0]
    assert neighbour_distances(centroids[:2])[0] == pytest.approx(1 - wide[0] @ wide[1])


@given(SIZES, st.integers(1, 100), st.sampled_from([0.05, 0.3, 2.0]), st.integers(0, 9))
def test_the_counts_solve_the_quadratic_program_of_the_paper(
    sizes: list[int], percent: int, temperature: float, seed: int
) -> None:
    numbers = np.array(sizes)
    wanted = math.ceil(numbers.sum() * percent / 100)
    complexity = np.random.default_rng(seed).uniform(0, 1, len(sizes))
    counts = kept_counts(complexity, numbers, wanted, temperature)
    assert counts.sum() == wanted
    assert (counts <= numbers).all()
    used = numbers > 0
    if wanted >= used.sum():
        assert (counts[used] >= 1).all()
    shares = np.where(used, np.exp(complexity / temperature), 0)
    ideal = shares / max(shares.sum(), 1e-300) * wanted
    loss = ((counts - ideal) ** 2).sum()
    lower = np.where(used & (wanted >= used.sum()), 1, 0)
    # no exchange of one sample between two clusters is nearer to the ideal
    for out, into in itertools.permutations(range(len(sizes)), 2):
        if counts[out] > lower[out] and counts[into] < numbers[into]:
            other = counts.astype(float)
            other[out] -= 1
            other[into] += 1
            assert ((other - ideal) ** 2).sum() >= loss - 1e-6


def test_a_dense_crowded_cluster_loses_more_and_its_most_prototypical_samples_go_first() -> None:
    rng = np.random.default_rng(0)
    axes = np.eye(16)
    centroids = np.vstack([axes[0], axes[0] + 0.3 * axes[1], axes[5]])
    dense = axes[0] + rng.normal(scale=0.02, size=(100, 16))
    wide = axes[5] + rng.normal(scale=0.3, size=(100, 16))
    points = np.vstack([dense, wide])
    points, centroids = (
        (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16) for rows in (points, centroids)
    )
    found = pruned(points, centroids, Density(keep=0.6, temperature=0.1))
    assert found.keep.sum() == 120
    assert found.keep[:100].sum() < 40
    cluster = assign_clusters(points, centroids)
    distance = 1 - np.einsum("nd,nd->n", points.astype(float), centroids[cluster].astype(float))
    for number in np.unique(cluster):
        rows = cluster == number
        if 0 < found.keep[rows].sum() < rows.sum():
            assert distance[rows & found.keep].min() >= distance[rows & ~found.keep].max()


@given(st.integers(0, 20))
def test_the_order_of_rows_does_not_matter(seed: int) -> None:
    centroids, points = unit_vectors(6, seed=1), unit_vectors(80, seed=2)
    order = np.random.default_rng(seed).permutation(80)
    cluster = assign_clusters(points, centroids)
    distance = centroid_distances(points, np.arange(80), cluster, centroids)
    uids = np.arange(80, dtype=np.uint64)
    settings = Density(keep=0.4)
    whole = prune(distance, cluster, centroids, uids * 0, uids, settings)
    mixed = prune(distance[order], cluster[order], centroids, uids * 0, uids[order], settings)
    assert (whole.keep[order] == mixed.keep).all()


def test_equal_distances_go_to_the_lower_uid() -> None:
    point = unit_vectors(1, seed=3)
    found = pruned(np.repeat(point, 10, axis=0), point, Density(keep=0.3))
    assert found.keep.tolist() == [True] * 3 + [False] * 7


def test_bounds_stay_while_the_share_fits_so_that_no_old_sample_moves() -> None:
    centroids, points = unit_vectors(6, seed=1), unit_vectors(300, seed=2)
    settings = Density(keep=0.5, tolerance=0.2)
    before = pruned(points[:250], centroids, settings)
    after = pruned(points, centroids, settings, before)
    assert (after.keep[:250] == before.keep).all()
    assert after.bounds == before.bounds
    exact = pruned(points, centroids, Density(keep=0.5, tolerance=0), before)
    assert exact.keep.sum() == 150
    assert pruned(points, centroids, Density(keep=0.2, tolerance=0.2), before).keep.sum() == 60
    assert pruned(points, unit_vectors(6, seed=4), settings, before).keep.sum() == 150
