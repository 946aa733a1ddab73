"""Heads on embeddings: LAION's formats, hostile files, and files of another kind."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from upath import UPath

from mmdata.errors import UserError
from mmdata.select.scores.aesthetic import load_head
from tests.support.pair_vectors import unit_vectors


def laion_mlp(relu: bool, width: int = 12) -> nn.Sequential:
    """The layers of LAION's predictor: dropout between them, and in one of its variants a ReLU."""
    torch.manual_seed(0)
    steps: list[nn.Module] = []
    for into, out in ((width, 8), (8, 5), (5, 1)):
        steps += [nn.Linear(into, out), *([nn.ReLU()] if relu and out > 1 else []), nn.Dropout(0.2)]
    return nn.Sequential(*steps[:-1]).eval()


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_an_mlp_gives_what_torch_gives(tmp_path: Path, relu: bool, suffix: str) -> None:
    layers = laion_mlp(relu)
    state = {f"layers.{name}": tensor for name, tensor in layers.state_dict().items()}
    path = tmp_path / f"head{suffix}"
    torch.save(state, path) if suffix == ".pth" else save_file(state, path)
    pictures = unit_vectors(300, 12)
    head = load_head(UPath(path), 12, "relu" if relu else "none")
    with torch.no_grad():
        expected = layers(torch.from_numpy(pictures.astype(np.float32)))[:, 0].numpy()
    scores = head.score(pictures, None)
    assert scores == pytest.approx(expected, abs=2e-6)
    assert scores.dtype == np.float32


def test_a_linear_head_has_weight_and_bias(tmp_path: Path) -> None:
    path = tmp_path / "linear.pth"
    torch.save({"weight": torch.arange(12.0)[None], "bias": torch.tensor([0.5])}, path)
    pictures = unit_vectors(10, 12)
    expected = pictures.astype(float) @ np.arange(12.0) + 0.5
    assert load_head(UPath(path), 12, "none").score(pictures, None) == pytest.approx(expected, abs=1e-6)


def test_a_pickle_with_code_in_it_is_never_loaded(tmp_path: Path) -> None:
    witness = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> tuple:
            return (Path.touch, (witness,))

    for name, data in (("raw.pth", pickle.dumps({"weight": Evil()}, protocol=2)), ("noise.pth", b"no weights at all")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match=name):
            load_head(UPath(tmp_path / name), 12, "none")
    torch.save({"weight": Evil()}, tmp_path / "zipped.pth")
    with pytest.raises(UserError, match="more than tensors"):
        load_head(UPath(tmp_path / "zipped.pth"), 12, "none")
    assert not witness.exists()


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"weight": torch.zeros(1, 7), "bias": torch.zeros(1)}, "takes vectors of 7 numbers, and .* gives 12"),
        ({"weight": torch.zeros(2, 12), "bias": torch.zeros(2)}, "12 -> 2 numbers, which do not end in one"),
        ({"weight": torch.zeros(1, 12)}, "no layers of weight and bias"),
        ({"visual.proj": torch.zeros(3)}, "holds visual.proj"),
        ({}, "holds nothing"),
    ],
)
def test_weights_that_do_not_fit_are_named_with_a_remedy(tmp_path: Path, state: dict, message: str) -> None:
    torch.save(state, tmp_path / "head.pth")
    with pytest.raises(UserError, match=f"(?s)head.pth.*{message}.*Remedy:"):
        load_head(UPath(tmp_path / "head.pth"), 12, "none")


def test_a_missing_file_is_named() -> None:
    with pytest.raises(UserError, match=r"nowhere\.pth.*does not exist"):
        load_head(UPath("nowhere.pth"), 12, "none")
