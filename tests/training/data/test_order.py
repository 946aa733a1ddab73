"""Order: a bijection in constant memory, the same for whoever asks, with neighbours that stay near each other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.data.order import Order, derived_seed, next_draw, permuted


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 1000),
    seed=st.integers(0, 2**63),
    block=st.integers(1, 300),
    window_blocks=st.integers(1, 9),
    epoch=st.integers(0, 10**6),
)
def test_every_sample_comes_once_an_epoch(n: int, seed: int, block: int, window_blocks: int, epoch: int) -> None:
    samples = Order(n, seed, block, window_blocks).at(epoch, np.arange(n))
    assert samples.dtype == np.int64
    assert np.array_equal(np.sort(samples), np.arange(n))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 255, 256, 257, 4096, 65537])
def test_the_keyed_permutation_is_one(n: int) -> None:
    for key in (0, 1, 2**64 - 1):
        assert np.array_equal(np.sort(permuted(np.arange(n), n, key)), np.arange(n))


def test_billions_of_samples_cost_nothing() -> None:
    order = Order(5_800_000_000, 1)
    positions = np.random.default_rng(0).integers(0, order.n, 2000)
    samples = order.at(3, np.unique(positions))
    assert len(np.unique(samples)) == len(np.unique(positions))
    assert 0 <= samples.min() <= samples.max() < order.n


def test_epochs_and_seeds_differ_and_nothing_else_does() -> None:
    n, everything = 5000, np.arange(5000)
    first = Order(n, 7, 16, 4).at(0, everything)
    for other in (Order(n, 7, 16, 4).at(1, everything), Order(n, 8, 16, 4).at(0, everything)):
        assert (other != first).mean() > 0.99
    assert (first != everything).mean() > 0.99
    assert np.array_equal(Order(n, 7, 16, 4).at(0, everything), first)


def test_the_order_does_not_change_between_versions() -> None:
    """A checkpoint's one integer means these samples for ever."""
    assert Order(1000, 42, 16, 4).at(2, np.arange(8)).tolist() == [927, 637, 196, 631, 636, 699, 690, 918]
    assert derived_seed(0, 4) == 4798472638027382065


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 999), min_size=1, max_size=60), st.integers(0, 50))
def test_a_position_is_asked_alone_or_among_others(positions: list[int], epoch: int) -> None:
    order = Order(1000, 3, 16, 4)
    whole = order.at(epoch, np.arange(1000))
    assert np.array_equal(order.at(epoch, np.array(positions)), whole[positions])
    assert [int(order.at(epoch, np.array([position]))[0]) for position in positions] == whole[positions].tolist()


def test_a_window_reads_whole_blocks_and_few_of_them() -> None:
    block, window_blocks, blocks = 16, 4, 64
    n = block * blocks + 5
    for epoch in range(3):
        samples = Order(n, 0, block, window_blocks).at(epoch, np.arange(n))
        span = block * window_blocks
        for start in range(0, n - span - 5, span):
            window = samples[start : start + span]
            touched = np.unique(window // block)
            assert len(touched) == window_blocks, "a window reads no more blocks than a shuffle buffer holds"
            assert np.array_equal(np.sort(window), np.sort((touched[:, None] * block + np.arange(block)).ravel()))
            assert (np.diff(window) != 1).mean() > 0.9, "and mixes their samples"


def test_any_sample_may_stand_anywhere() -> None:
    """Over many epochs each sample stands at the first position about equally often: chi-squared, 63 degrees."""
    order, epochs = Order(64, 5, 8, 2), 3200
    counts = np.bincount([int(order.at(epoch, np.array([0]))[0]) for epoch in range(epochs)], minlength=64)
    assert ((counts - epochs / 64) ** 2 / (epochs / 64)).sum() < 120


@settings(max_examples=100, deadline=None)
@given(n=st.integers(1, 200), sizes=st.lists(st.integers(1, 70), min_size=1, max_size=30))
def test_any_batch_sizes_read_each_sample_once_an_epoch(n: int, sizes: list[int]) -> None:
    """The batch may change on every resume: an epoch is still an epoch."""
    consumed, epochs = 0, {}
    for size in sizes:
        drawn = next_draw(consumed, size, n)
        assert 0 < len(drawn.positions) <= size
        epochs.setdefault(drawn.epoch, []).extend(drawn.positions.tolist())
        consumed = drawn.consumed
    last = max(epochs)
    assert sorted(epochs) == list(range(last + 1))
    for epoch, positions in epochs.items():
        assert positions == list(range(n if epoch < last else len(positions)))
    assert consumed == sum(map(len, epochs.values()))


def test_mixed_seeds_fit_a_generator_and_differ() -> None:
    seeds = {derived_seed(a, b) for a in range(30) for b in range(30)}
    assert len(seeds) == 900
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derived_seed(1, 23) != derived_seed(12, 3)
