"""Weights that a stage does not train are written once, beside its checkpoints, and are found and checked at load."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from mmdata.errors import DataError
from training.checkpoint.checkpoints import Progress, list_checkpoints, load_weights, read_progress, restore
from training.checkpoint.saver import CheckpointSaver, save

PROGRESS = Progress("instruct", 1, 8, "release-1", "digest-1", {})


def partly_frozen(seed: int = 0) -> nn.Sequential:
    """A large frozen layer that is tied to another name, and a small one that is trained."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(256, 256, bias=False), nn.Linear(256, 256, bias=False), nn.Linear(256, 1))
    model[1].weight = model[0].weight
    model[0].requires_grad_(False)
    return model


def saved_steps(folder: Path, *steps: int, keep: int = 2) -> tuple[nn.Sequential, torch.optim.Optimizer]:
    model = partly_frozen()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)
    with CheckpointSaver(folder, keep) as saver:
        for step in steps:
            model(torch.ones(1, 256)).sum().backward()
            optimizer.step()
            saver.save(model, optimizer, replace(PROGRESS, step=step))
    return model, optimizer


def bases(folder: Path) -> list[Path]:
    return sorted(folder.glob("base-*"))


def test_the_frozen_weights_are_written_once_and_the_others_each_time(tmp_path: Path) -> None:
    model, _ = saved_steps(tmp_path, 1, 2)
    (base,) = bases(tmp_path)
    frozen = model[0].weight.numel() * 4
    assert frozen < (base / "__0_0.distcp").stat().st_size < 3 * frozen
    for checkpoint in list_checkpoints(tmp_path):
        assert read_progress(checkpoint).base == base.name
        assert sum(path.stat().st_size for path in checkpoint.iterdir()) < frozen
    read = partly_frozen(seed=1)
    assert load_weights(tmp_path / "step-00000002", read, lambda _: True) == []
    assert all(torch.equal(read.state_dict()[name], tensor) for name, tensor in model.state_dict().items())


def test_a_resumed_run_goes_on_with_the_base_of_its_checkpoint(tmp_path: Path) -> None:
    model, _ = saved_steps(tmp_path, 1)
    (base,) = bases(tmp_path)
    written = (base / ".metadata").stat().st_mtime_ns
    other = partly_frozen(seed=1)
    optimizer = torch.optim.AdamW([p for p in other.parameters() if p.requires_grad], lr=0.1)
    restore(tmp_path / "step-00000001", other, optimizer)
    assert torch.equal(other[0].weight, model[0].weight)
    with CheckpointSaver(tmp_path, 1, read_progress(tmp_path / "step-00000001").base) as saver:
        saver.save(other, optimizer, replace(PROGRESS, step=2))
    assert bases(tmp_path) == [base]
    assert (base / ".metadata").stat().st_mtime_ns == written


def test_a_checkpoint_of_before_has_all_weights_and_is_followed_by_one_with_a_base(tmp_path: Path) -> None:
    whole = partly_frozen().requires_grad_(True)
    save(tmp_path, whole, None, PROGRESS, keep=2)
    assert bases(tmp_path) == []
    model = partly_frozen(seed=1)
    assert load_weights(tmp_path / "step-00000001", model, lambda _: True) == []
    save(tmp_path, model, None, replace(PROGRESS, step=2), keep=2)
    assert len(bases(tmp_path)) == 1
    assert load_weights(tmp_path / "step-00000002", partly_frozen(), lambda _: True) == []


def test_a_base_goes_with_the_last_checkpoint_that_names_it(tmp_path: Path) -> None:
    saved_steps(tmp_path, 1)
    (old,) = bases(tmp_path)
    save(tmp_path, partly_frozen(seed=5), None, replace(PROGRESS, step=2), keep=2)
    assert len(bases(tmp_path)) == 2
    save(tmp_path, partly_frozen(seed=5), None, replace(PROGRESS, step=3), keep=2)
    assert old not in bases(tmp_path)
    assert load_weights(tmp_path / "step-00000003", partly_frozen(), lambda _: True) == []


def test_a_flipped_byte_of_the_base_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    model, optimizer = saved_steps(tmp_path, 1)
    (base,) = bases(tmp_path)
    tensors = base / "__0_0.distcp"
    content = bytearray(tensors.read_bytes())
    content[content.index(model[0].weight.detach().numpy().tobytes())] ^= 1
    tensors.write_bytes(content)
    for read in (lambda at: restore(at, model, optimizer), lambda at: load_weights(at, model, lambda _: True)):
        with pytest.raises(DataError, match=rf"{base.name}/__0_0\.distcp: its bytes have changed"):
            read(tmp_path / "step-00000001")


def test_a_missing_or_other_base_is_an_error_and_the_remedy_helps(tmp_path: Path) -> None:
    saved_steps(tmp_path / "run", 1)
    shutil.copytree(tmp_path / "run" / "step-00000001", tmp_path / "copy" / "step-00000001")
    (base,) = bases(tmp_path / "run")
    copied = tmp_path / "copy" / "step-00000001"
    with pytest.raises(
        DataError, match=rf"others are in .*copy/{base.name}, which is missing. Remedy: copy {base.name}"
    ):
        load_weights(copied, partly_frozen(), lambda _: True)
    save(tmp_path / "other", partly_frozen(seed=5), None, PROGRESS, keep=1)
    shutil.copytree(bases(tmp_path / "other")[0], tmp_path / "copy" / base.name)
    with pytest.raises(
        DataError, match=rf"{base.name}: is not the base that step-00000001 was trained on.*Remedy: copy"
    ):
        load_weights(copied, partly_frozen(), lambda _: True)
    shutil.rmtree(tmp_path / "copy" / base.name)
    shutil.copytree(base, tmp_path / "copy" / base.name)
    assert load_weights(copied, partly_frozen(), lambda _: True) == []
