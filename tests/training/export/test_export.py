"""Export: towers for open_clip, a table that was measured, requests that cannot be met, whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch

from mmdata.errors import UserError
from tests.support.tiny_run import settings
from tests.support.trained import checkpoint_of, config_of
from training.export import shrink
from training.export.export import export
from training.stages.stage_model import load_model


def test_towers_open_in_open_clip(tmp_path: Path, numbered: str) -> None:
    place = checkpoint_of(tmp_path, "align", settings(), numbered)
    found = export(place, tmp_path / "out", release=numbered)
    model: Any = load_model(place)[0].model
    clip = open_clip.create_model(f"local-dir:{tmp_path / 'out'}")
    tokens = open_clip.get_tokenizer(f"local-dir:{tmp_path / 'out'}")(["a sea", "a tree"])
    shown = torch.randn(2, 3, 32, 32)
    clip.eval()
    with torch.no_grad():
        assert (clip.encode_image(shown) - model.vision(shown)).abs().max() < 1e-6
        assert (clip.encode_text(tokens) - model.text(model.tokenize(["a sea", "a tree"]))).abs().max() < 1e-6
    before, after = found["rows"]
    assert (before["name"], after["name"]) == ("checkpoint", "open_clip")
    assert before["val/loss"] == pytest.approx(after["val/loss"], abs=1e-5)
    assert after["embedding_difference"] < 1e-6


def test_requests_that_cannot_be_met_say_why(tmp_path: Path, numbered: str) -> None:
    joint = checkpoint_of(tmp_path, "joint", config_of())
    align = checkpoint_of(tmp_path, "align", settings())
    with pytest.raises(UserError, match=r"needs a release to learn from"):
        export(joint, tmp_path / "out", distill_steps=3)
    with pytest.raises(UserError, match=r"must be between 0 and 1"):
        export(joint, tmp_path / "out", prune=1.0)
    with pytest.raises(UserError, match=r"stage `align` has none"):
        export(align, tmp_path / "out", int8=True)
    with pytest.raises(UserError, match=r"was trained on release none"):
        export(joint, tmp_path / "out", release=numbered)
    with pytest.raises(UserError, match=r"no checkpoint there"):
        export(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("kept")
    with pytest.raises(UserError, match=r"exists already"):
        export(joint, tmp_path / "full")
    assert not (tmp_path / "out").exists()


def test_a_failed_export_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = checkpoint_of(tmp_path, "joint", config_of())
    before = sorted(path.name for path in tmp_path.iterdir())

    def broken(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(shrink, "quantise", broken)
    with pytest.raises(OSError, match="disk full"):
        export(place, tmp_path / "out", int8=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
