"""From pictures to a trained model with generated captions mixed in; a resume reads the same captions."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.captioning import PART, captioned_at, save_llava
from tests.support.tiny_run import settings
from tests.training.test_run import Cut, cut_at, identical, weights
from training.run import train

pytest.importorskip("av", reason="mmdata[video] is not installed")
pytest.importorskip("onnxruntime", reason="mmdata[video] is not installed")


@pytest.mark.parametrize("stage", [pytest.param("align", marks=pytest.mark.slow), "joint"])
def test_a_resumed_run_with_mixed_captions_equals_the_uninterrupted_one(tmp_path: Path, stage: str) -> None:
    captioner: dict[str, object] = {"model": "one"}
    if stage == "joint":  # of its random weights few captions end; those that do are enough to change what is trained
        captioner = {"model": str(save_llava(tmp_path / "llava")), "captioner": "transformers", "max_tokens": 40}
    built = captioned_at(tmp_path, recaption=captioner)
    stamp = built.workspace.part_stamp(PART, "features")
    assert stamp is not None and stamp.counts["generated_captions"] > 0
    release = str(built.workspace.root)
    section = {"steps": 6, "checkpoint_every": 2, "log_every": 1}
    data = {"workers": 0, "generated_captions": 0.5}
    whole = train(release, [stage], settings(**{stage: section, "data": data}), tmp_path / "whole")[0]
    two_workers = settings(**{stage: section, "data": {**data, "workers": 2}})
    with pytest.raises(Cut):
        train(release, [stage], two_workers, tmp_path / "cut", on_line=cut_at(5))
    resumed = train(release, [stage], two_workers, tmp_path / "cut")[0]
    assert identical(weights(whole.checkpoint), weights(resumed.checkpoint))
    plain = train(release, [stage], settings(**{stage: section}), tmp_path / "plain")[0]
    assert not identical(weights(whole.checkpoint), weights(plain.checkpoint))
