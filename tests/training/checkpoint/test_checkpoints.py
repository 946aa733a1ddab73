"""Checkpoints are found by stage or step, and another release's are refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from mmdata.errors import DataError, UserError
from tests.support.saved_steps import PROGRESS, save_steps
from training.checkpoint.checkpoints import (
    check_release,
    find_checkpoint,
    latest_checkpoint,
    list_checkpoints,
    load_weights,
    read_progress,
)
from training.checkpoint.saver import save


def test_a_stages_checkpoint_is_the_one_of_its_result_or_the_newest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no checkpoint there"):
        find_checkpoint(tmp_path)
    assert latest_checkpoint(tmp_path / "checkpoints") is None
    save_steps(tmp_path / "checkpoints", 1, 2)
    older, newest = list_checkpoints(tmp_path / "checkpoints")
    assert find_checkpoint(older) == older
    assert find_checkpoint(tmp_path) == newest
    (tmp_path / "result.json").write_text(json.dumps({"checkpoint": older.name}))
    assert find_checkpoint(tmp_path) == older
    (newest / "meta.json").unlink()
    assert latest_checkpoint(tmp_path / "checkpoints") == older


def test_progress_is_read_back_or_its_file_is_named(tmp_path: Path) -> None:
    written = replace(PROGRESS, step=7, consumed=56, best=0.5, best_step=7, metrics={"val/loss": 0.5})
    checkpoint = save(tmp_path, nn.Linear(3, 2), None, written, keep=1)
    assert read_progress(checkpoint) == written
    (checkpoint / "meta.json").write_text(
        json.dumps({**json.loads((checkpoint / "meta.json").read_text()), "format": 9})
    )
    with pytest.raises(DataError, match="format 9"):
        read_progress(checkpoint)
    (checkpoint / "meta.json").write_text("{")
    with pytest.raises(DataError, match=r"meta\.json: cannot be read"):
        read_progress(checkpoint)


def test_another_release_is_refused_unless_allowed(tmp_path: Path) -> None:
    check_release(PROGRESS, "release-1", "digest-1", False, tmp_path)
    check_release(PROGRESS, "release-2", "digest-2", True, tmp_path)
    for release_id, digest in (("release-2", "digest-1"), ("release-1", "digest-2")):
        with pytest.raises(UserError, match="was trained on release release-1"):
            check_release(PROGRESS, release_id, digest, False, tmp_path)


def test_one_of_several_sources_may_be_measured_and_not_trained_on(tmp_path: Path) -> None:
    sources = [{"id": f"release-{number}", "digest": f"digest-{number}", "weight": 1.0} for number in (1, 2)]
    mixed = replace(PROGRESS, release_id="release-1 + release-2", release_digest="both", sources=sources)
    check_release(mixed, "release-2", "digest-2", False, tmp_path, one_of_several=True)
    for one_of_several, digest in ((False, "digest-2"), (True, "digest-1")):
        with pytest.raises(UserError, match=r"was trained on release release-1 \+ release-2"):
            check_release(mixed, "release-2", digest, False, tmp_path, one_of_several=one_of_several)


def test_weights_that_are_missing_are_named_and_the_others_loaded(tmp_path: Path) -> None:
    saved = nn.Sequential(nn.Linear(3, 2))
    checkpoint = save(tmp_path, saved, None, PROGRESS, keep=1)
    larger = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    assert load_weights(checkpoint, larger, lambda name: "weight" in name) == ["1.weight"]
    assert torch.equal(larger[0].weight, saved[0].weight)
    assert not torch.equal(larger[0].bias, saved[0].bias)
