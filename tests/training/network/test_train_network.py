"""A network that is trained on true pairs may decide, one that is trained on shuffled pairs may not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmdata.config import Score
from mmdata.errors import UserError
from mmdata.score.networks import refuse_unproven
from tests.support.coloured_pairs import TINY, coloured_release, tiny_scorer
from training.network import train_network as module
from training.network.train_network import network_config, train_network


def test_true_pairs_make_a_network_that_may_decide(tmp_path: Path) -> None:
    score = tiny_scorer(tmp_path / "scorer")
    seed = coloured_release(tmp_path / "seed")
    checked = train_network(str(seed), score, tmp_path / "dfn", TINY)
    assert checked.pairs == 80
    assert checked.beats_scorer
    assert checked.network["shuffled"].value > 0.8 > checked.scorer["shuffled"].value
    written = json.loads((tmp_path / "dfn" / "align" / "scorer" / "network.json").read_text())
    assert written["beats_scorer"] is True
    refuse_unproven(_with_network(score, tmp_path / "dfn"), ["dfn"])


@pytest.mark.slow  # both roads of the check are quick in test_mismatch_check
def test_shuffled_pairs_make_one_that_is_refused(tmp_path: Path) -> None:
    score = tiny_scorer(tmp_path / "scorer")
    seed = coloured_release(tmp_path / "seed", shuffled=True)
    assert not train_network(str(seed), score, tmp_path / "dfn", TINY).beats_scorer
    with pytest.raises(UserError, match="did not beat the scorer"):
        refuse_unproven(_with_network(score, tmp_path / "dfn"), ["dfn"])


def test_a_network_that_was_never_checked_may_not_decide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(*_: object, **__: object) -> None:
        raise RuntimeError("killed")

    monkeypatch.setattr(module, "check", dies)
    score = tiny_scorer(tmp_path / "scorer")
    seed = coloured_release(tmp_path / "seed", pairs=300)
    with pytest.raises(RuntimeError, match="killed"):
        train_network(str(seed), score, tmp_path / "dfn", [*TINY, "align.steps=2"])
    with pytest.raises(UserError, match="did not beat the scorer"):
        refuse_unproven(_with_network(score, tmp_path / "dfn"), ["dfn"])


def test_too_few_held_out_pairs_are_an_error(tmp_path: Path) -> None:
    seed = coloured_release(tmp_path / "seed", pairs=100)
    with pytest.raises(UserError, match=r"shards\.validation_fraction"):
        train_network(str(seed), tiny_scorer(tmp_path / "scorer"), tmp_path / "dfn")


@pytest.mark.parametrize(
    ("score", "encoder"),
    [
        (Score(model="demo", pretrained=None), ("demo", "ViT-B-32", None)),
        (Score(model="ViT-L-14", pretrained="openai"), ("open_clip", "ViT-L-14", "openai")),
        (Score(model="hf-hub:a/b"), ("open_clip", "hf-hub:a/b", None)),
    ],
)
def test_the_network_starts_from_the_scorer(score: Score, encoder: tuple[str, str, str | None]) -> None:
    found = network_config(score, ["align.steps=7"])
    assert (found.model.encoder.kind, found.model.encoder.model, found.model.encoder.pretrained) == encoder
    assert found.align.steps == 7
    assert found.data.cache_features and found.align.crop_scale == 1, "frozen towers run once on each picture"


def _with_network(score: Score, folder: Path) -> Score:
    return Score.model_validate({**score.model_dump(), "networks": {"dfn": {"model": str(folder)}}})
