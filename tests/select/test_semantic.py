"""Semantic duplicates, against a reference that looks at every pair."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdata.select import semantic
from mmdata.select.semantic import semantic_leaders
from mmdata.select.verdicts import STAYS
from tests.support.selecting import points


def brute_force(embeddings: np.ndarray, cluster: np.ndarray, rank: np.ndarray, eps: float) -> list[int]:
    exact = embeddings.astype(np.float64)
    norms = np.linalg.norm(exact, axis=1)
    leaders, kept = [STAYS] * len(exact), []
    for row in np.argsort(rank):
        same = [o for o in kept if cluster[o] == cluster[row] and cluster[row] >= 0]
        like = [o for o in same if exact[row] @ exact[o] >= (1 - eps) * norms[row] * norms[o]]
        if like:
            leaders[row] = int(like[0])
        else:
            kept.append(row)
    return leaders


@settings(max_examples=40)
@given(st.integers(0, 80), st.floats(0.001, 0.4), st.integers(0, 10_000), st.sampled_from([3, 7, 1024]))
def test_semantic_duplicates_are_those_of_a_walk_over_every_pair(rows: int, eps: float, seed: int, block: int) -> None:
    embeddings = np.array(points(rows, seed=seed), np.float16).reshape(rows, 8)
    rng = np.random.default_rng(seed)
    cluster, rank = rng.integers(-1, 3, rows).astype(np.int32), rng.permutation(rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(semantic, "_BLOCK_ROWS", block)
        assert semantic_leaders(embeddings, cluster, rank, eps).tolist() == brute_force(embeddings, cluster, rank, eps)


def test_what_is_alike_in_another_cluster_stays() -> None:
    same = np.tile(points(1)[0], (3, 1))
    leaders = semantic_leaders(same, np.array([0, 0, 1], np.int32), np.array([1, 0, 2]), 0.05)
    assert leaders.tolist() == [1, STAYS, STAYS]
