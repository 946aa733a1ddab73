"""Networks that did not beat the scorer may not decide."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmdata.config import Score
from mmdata.errors import UserError
from mmdata.score.networks import network_settings, refuse_unproven, verdict_path


def score_with(**networks: str) -> Score:
    return Score(model="demo", networks={name: {"model": model} for name, model in networks.items()})


@pytest.mark.parametrize("place", ["", "scorer", "align/scorer"])
def test_the_verdict_is_found_beside_the_network_or_its_towers(tmp_path: Path, place: str) -> None:
    towers = tmp_path / "net" / place
    towers.mkdir(parents=True, exist_ok=True)
    (towers / "open_clip_config.json").write_text("{}")
    score = score_with(dfn=str(tmp_path / "net"))
    assert verdict_path(str(tmp_path / "net")) is None
    refuse_unproven(score, ["dfn", "nsfw", "anything"])  # without a verdict it is the user's own scorer
    for folder in {towers, tmp_path / "net"}:
        verdict = folder / "network.json"
        verdict.write_text(json.dumps({"beats_scorer": True}))
        refuse_unproven(score, ["dfn"])
        verdict.write_text(json.dumps({"beats_scorer": False}))
        refuse_unproven(score, ["nsfw"])  # it is scored, but decides nothing
        with pytest.raises(UserError, match=r"network\.json: score\.networks\.dfn did not beat the scorer.*Remedy"):
            refuse_unproven(score, ["dfn"])
        verdict.write_text("{}")
        with pytest.raises(UserError, match=r"network\.json: has no verdict 'beats_scorer'.*Remedy"):
            refuse_unproven(score, ["dfn"])
        verdict.unlink()


def test_a_network_is_loaded_like_the_scorer_with_weights_of_its_own() -> None:
    score = Score(model="ViT-B-32", precision="fp32", device="cpu", networks={"dfn": {"model": "demo"}})
    loaded = network_settings(score, "dfn")
    assert (loaded.model, loaded.pretrained, loaded.precision, loaded.networks) == ("demo", None, "fp32", {})


@pytest.mark.parametrize("name", ["clip", "nsfw", "text_area", "DFN", "a-b", "1st", ""])
def test_a_name_that_no_column_can_have_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be the name of a network"):
        score_with(**{name: "demo"})
