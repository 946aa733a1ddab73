"""How well a loader shuffles, as the loader benchmark tells it."""

from __future__ import annotations

import random

import polars as pl

from benchmarks.loader import is_installed, places_of, shuffle_quality

INDEX = pl.DataFrame(
    {
        "uid": [str(at) for at in range(1000)],
        "shard": [f"{at // 100}" for at in range(1000)],
        "offset": [at % 100 for at in range(1000)],
    }
)


def batches(order: list[int]) -> list[list[str]]:
    return [[str(at) for at in order[start : start + 50]] for start in range(0, 1000, 50)]


def test_an_order_that_is_not_shuffled_is_told_from_one_that_is() -> None:
    places = places_of(INDEX.sample(fraction=1.0, shuffle=True, seed=0))
    assert shuffle_quality(batches(list(range(1000))), places) == "100% of a batch from one shard, neighbours 0%"
    share, distance = shuffle_quality(batches(random.Random(0).sample(range(1000), 1000)), places).split("% of a batch")
    assert int(share) < 25
    assert 90 <= int(distance.rpartition(" ")[2].rstrip("%")) <= 110


def test_a_peer_whose_package_is_missing_is_left_out() -> None:
    assert is_installed("json.decoder")
    assert not is_installed("no_such_package.loader")
