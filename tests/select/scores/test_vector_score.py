"""Every score from vectors is a pure function of a pair: batches, order and further rows change nothing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmdata.select.scores.aesthetic import EmbeddingHead
from mmdata.select.scores.clip_loss import SurrogateClipLoss
from mmdata.select.scores.norm_sim import NormSim
from mmdata.select.scores.targets import TargetVectors
from mmdata.select.scores.variance_alignment import VarianceAlignment
from mmdata.select.scores.vector_score import VectorScore, blocks
from tests.support.pair_vectors import bank_of, pairs, unit_vectors

DIM = 48
ROWS = 330
PICTURES, TEXTS = pairs(ROWS, DIM, seed=3)
BANK = bank_of(*(side[40:340] for side in pairs(400, DIM, seed=3)))
TARGET = unit_vectors(130, DIM, seed=8)
RNG = np.random.default_rng(1)
LAYERS = [(RNG.normal(size=(20, DIM)), RNG.normal(size=20)), (RNG.normal(size=(1, 20)), RNG.normal(size=1))]
MAKERS: dict[str, Callable[[], VectorScore]] = {
    "s-clip-loss": lambda: SurrogateClipLoss(BANK, 0.01),
    "norm-sim 2": lambda: NormSim(TargetVectors(TARGET), 2),
    "norm-sim inf": lambda: NormSim(TargetVectors(TARGET), "inf"),
    "vas": lambda: VarianceAlignment(TARGET, None, "target"),
    "vas both": lambda: VarianceAlignment(BANK.pictures, BANK.texts, "bank"),
    "aesthetic": lambda: EmbeddingHead(LAYERS, "none"),
    "aesthetic relu": lambda: EmbeddingHead(LAYERS, "relu"),
}
WHOLE = {name: make().score(PICTURES, TEXTS) for name, make in MAKERS.items()}


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmdata.select.scores.vector_score.BLOCK_NUMBERS", 20_000)


def test_blocks_cover_all_rows_once() -> None:
    assert [(block.start, block.stop) for block in blocks(900, 50)] == [(0, 400), (400, 800), (800, 1200)]
    assert list(blocks(0, 50)) == []
    assert len(list(blocks(3, 10**9))) == 3


@pytest.mark.parametrize("name", MAKERS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_score_is_the_same_to_the_bit_in_any_batch_and_any_order(name: str, data: st.DataObject) -> None:
    rows = np.array(data.draw(st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=ROWS)))
    scores = MAKERS[name]().score(PICTURES[rows], TEXTS[rows])
    assert (scores == WHOLE[name][rows]).all()


@pytest.mark.parametrize("name", MAKERS)
def test_every_row_alone_has_the_score_that_it_has_among_others(name: str) -> None:
    score = MAKERS[name]()
    alone = [score.score(PICTURES[row : row + 1], TEXTS[row : row + 1])[0] for row in range(0, ROWS, 7)]
    assert (np.array(alone) == WHOLE[name][::7]).all()
    assert np.isfinite(WHOLE[name]).all()
    assert len(np.unique(WHOLE[name])) > ROWS // 2


def test_no_rows_have_no_scores() -> None:
    for make in MAKERS.values():
        assert len(make().score(PICTURES[:0], TEXTS[:0])) == 0
