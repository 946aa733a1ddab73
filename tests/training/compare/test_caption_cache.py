"""Captions are embedded once, and only by the scorer of the tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from upath import UPath

from mmdata.config import Score
from mmdata.errors import DataError
from mmdata.score.features_reader import ScorerMark
from training.compare import caption_cache
from training.compare.caption_cache import CaptionCache

MARK = ScorerMark("a scorer", "c0de")
SCORE = Score(model="demo", pretrained=None)


class StandIn:
    """Embeds a caption by its length."""

    name, fingerprint = MARK

    def __init__(self) -> None:
        self.asked: list[str] = []

    def embed_texts(self, captions: list[str]) -> np.ndarray:
        self.asked += captions
        return np.array([[len(caption), 1.0] for caption in captions], np.float32)


@pytest.fixture
def scorer(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    stand_in = StandIn()
    monkeypatch.setattr(caption_cache, "load_scorer", lambda score: stand_in)
    return stand_in


def test_a_caption_is_embedded_once(scorer: StandIn, tmp_path: Path) -> None:
    first = CaptionCache(SCORE, MARK, UPath(tmp_path)).embed(["a bird", " a bird ", "an owl"])
    assert first.tolist() == [[6, 1], [6, 1], [6, 1]]
    again = CaptionCache(SCORE, MARK, UPath(tmp_path)).embed(["a heron", "an owl"])
    assert again.tolist() == [[7, 1], [6, 1]]
    assert scorer.asked == ["a bird", "an owl", "a heron"]


def test_another_scorer_than_that_of_the_tables_is_refused(scorer: StandIn, tmp_path: Path) -> None:
    other = CaptionCache(SCORE, ScorerMark("an older one", "0000"), UPath(tmp_path))
    with pytest.raises(DataError, match="an older one"):
        other.embed(["a bird"])
