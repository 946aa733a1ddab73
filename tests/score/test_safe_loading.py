"""Weights that hold more than tensors are refused, and nothing in them runs."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from mmdata.config import Score
from mmdata.errors import UserError
from mmdata.score.scorer import load_scorer


def test_a_checkpoint_that_needs_unpickling_is_refused(tmp_path: Path, named: str) -> None:
    class Hostile:
        def __reduce__(self) -> tuple:
            return Path.touch, (tmp_path / "executed",)

    torch.save({"state_dict": Hostile()}, tmp_path / "zip.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Hostile()))
    for name in ("zip.pt", "plain.pt"):
        with pytest.raises(UserError, match=name):
            load_scorer(Score(model=named, pretrained=str(tmp_path / name), device="cpu"))
    assert not (tmp_path / "executed").exists()
