"""Mixtures: every sample of a source before any again, weights within rounding, and one integer as the whole state."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdata.score.preprocess import Preprocess
from mmdata.workspace.layout import Workspace
from training.data.batch_readers import PairReader, RowReader, Share
from training.data.examples import Pairs
from training.data.media_tensors import MediaSpec
from training.data.mixture import JoinedSource, Mixture, interleaved
from training.data.order import Order, next_draw
from training.data.row_layout import Layout
from training.data.sample_index import open_training_release
from training.data.sample_reader import SampleReader
from training.data.text_codec import TextCodec, load_tokenizer

SPEC = MediaSpec(Preprocess(size=(16, 16)))
SIZES = st.lists(st.tuples(st.integers(1, 60), st.floats(0.05, 3.5)), min_size=1, max_size=4)


def mixture(sizes: list[tuple[int, float]], seed: int = 3) -> Mixture:
    orders = tuple(Order(n, seed + at, 4, 3) for at, (n, _) in enumerate(sizes))
    return Mixture(orders, tuple(weight for _, weight in sizes))


def drawn(mixed: Mixture, first: int, count: int) -> list[tuple[int, int]]:
    """(sample, pass) of `count` draws after the first ones, in steps of one."""
    out = []
    for consumed in range(first, first + count):
        draw = next_draw(consumed, 1, mixed.n)
        samples, passes = mixed.pick(draw.epoch, draw.positions)
        out.append((int(samples[0]), int(passes[0])))
    return out


@settings(max_examples=60, deadline=None)
@given(sizes=SIZES, seed=st.integers(0, 2**62), epochs=st.integers(1, 5))
def test_no_sample_is_read_again_before_all_of_its_source(
    sizes: list[tuple[int, float]], seed: int, epochs: int
) -> None:
    mixed = mixture(sizes, seed)
    starts = np.cumsum([0, *(n for n, _ in sizes)])
    times: Counter[int] = Counter()
    seen: set[tuple[int, int]] = set()
    for epoch in range(epochs):
        samples, passes = mixed.pick(epoch, np.arange(mixed.n))
        for number, (n, weight) in enumerate(sizes):
            of_source = samples[(samples >= starts[number]) & (samples < starts[number + 1])]
            assert len(of_source) == max(1, round(weight * n)), "each epoch holds the weights"
        times.update(samples.tolist())
        assert seen.isdisjoint(zip(samples.tolist(), passes.tolist(), strict=True))
        seen.update(zip(samples.tolist(), passes.tolist(), strict=True))
        for number in range(len(sizes)):
            often = [times[sample] for sample in range(starts[number], starts[number + 1])]
            assert max(often) - min(often) <= 1, f"source {number} after epoch {epoch}"


@settings(max_examples=60, deadline=None)
@given(counts=st.lists(st.integers(1, 80), min_size=1, max_size=5))
def test_places_are_spread_evenly(counts: list[int]) -> None:
    n = sum(counts)
    source, place = interleaved(counts, np.arange(n))
    for number, count in enumerate(counts):
        chosen = source == number
        assert place[chosen].tolist() == list(range(count)), "each place once, in order"
        off = np.cumsum(chosen) - np.arange(1, n + 1) * count / n
        assert np.abs(off).max() <= number + 1


@settings(max_examples=40, deadline=None)
@given(sizes=SIZES, consumed=st.integers(0, 400), batch=st.integers(1, 50))
def test_any_integer_gives_the_same_rest(sizes: list[tuple[int, float]], consumed: int, batch: int) -> None:
    """Whatever the batch size, before and after."""
    mixed = mixture(sizes)
    rest, at = [], consumed
    while len(rest) < 60:
        draw = next_draw(at, batch, mixed.n)
        rest += list(zip(*(values.tolist() for values in mixed.pick(draw.epoch, draw.positions)), strict=True))
        at = draw.consumed
    assert rest == drawn(mixed, consumed, len(rest))


@pytest.mark.parametrize("weight", [1.0, 0.5, 2.75])
def test_a_source_alone_is_read_in_its_own_order(weight: float) -> None:
    """A weight says nothing where there is nothing beside it."""
    order = Order(37, 5, 4, 3)
    passes = [(sample, number) for number in range(5) for sample in order.at(number, np.arange(37)).tolist()]
    assert drawn(Mixture((order,), (weight,)), 0, 150) == passes[:150]


def test_the_mixture_does_not_change_between_versions() -> None:
    """A checkpoint's one integer means these samples for ever."""
    meant = [(3, 0), (1, 0), (17, 2), (6, 1), (16, 2), (9, 1), (10, 0), (4, 1)]
    assert drawn(mixture([(10, 1.0), (6, 0.5), (3, 2.0)]), 17, 8) == meant


def test_billions_of_samples_cost_nothing() -> None:
    mixed = mixture([(5_800_000_000, 1.0), (40_000_000, 2.5)])
    positions = np.unique(np.random.default_rng(0).integers(0, mixed.n, 2000))
    samples, passes = mixed.pick(1, positions)
    assert len(set(zip(samples.tolist(), passes.tolist(), strict=True))) == len(positions)
    assert abs((samples >= 5_800_000_000).mean() - 0.1 / 5.9) < 0.015


@pytest.fixture(scope="module")
def joined(mixed: Workspace, tmp_path_factory: pytest.TempPathFactory) -> JoinedSource:
    release = open_training_release(str(mixed.root), tmp_path_factory.mktemp("cache"))
    return JoinedSource([Pairs(release.samples(s), SampleReader(release), SPEC) for s in ("train", "validation")])


def test_joined_sources_are_their_samples(joined: JoinedSource) -> None:
    first, second = joined.sources
    assert len(joined) == len(first) + len(second) > len(first) > 0
    indices = np.array([len(joined) - 1, 0, len(first), len(first) - 1])
    alone = [(second, len(second) - 1), (first, 0), (second, 0), (first, len(first) - 1)]
    for at, (index, (source, local)) in enumerate(zip(indices.tolist(), alone, strict=True)):
        assert joined.locate(index) == (source, local)
        assert joined.tokens(indices)[at] == source.tokens(np.array([local]))[0]
        assert joined.media(indices)[at].tolist() == source.media(np.array([local]))[0].tolist()
        assert joined.turns(index) == source.turns(local)
        assert joined.texts(index) == source.texts(local)
        assert joined.read(index).uid == source.read(local).uid
        ours, theirs = joined.encoded_media(index), source.encoded_media(local)
        assert [picture.key for picture in ours.pictures] == [picture.key for picture in theirs.pictures]


@pytest.mark.parametrize("kind", ["pairs", "rows"])
def test_batches_of_a_mixture_are_the_same_for_any_world(joined: JoinedSource, kind: str) -> None:
    codec = TextCodec(load_tokenizer("bytes"))
    sizes = [len(source) for source in joined.sources]
    order = Mixture(tuple(Order(n, 1, 4, 3) for n in sizes), (1.5, 0.75))

    def batch(rank: int, world: int, consumed: int) -> list[str]:
        share = Share(rank, world)
        if kind == "pairs":
            return PairReader(joined, order, 8, share, lambda texts: torch.zeros(len(texts), 1))[consumed].uids
        layout = Layout(4, 0, 96, 64, packed=True, template=False)
        return RowReader(joined, order, 8, share, codec, layout)[consumed].uids

    for consumed in (0, 8, order.n - 3):
        whole = batch(0, 1, consumed)
        assert len(whole) == min(8, order.n - consumed)
        for world in (2, 4):
            assert sorted(uid for rank in range(world) for uid in batch(rank, world, consumed)) == sorted(whole)
