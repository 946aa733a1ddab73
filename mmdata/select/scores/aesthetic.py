"""A head on the embedding of a picture: a linear layer or an MLP, such as LAION's aesthetic predictors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

import numpy as np
from upath import UPath

from mmdata.errors import UserError, first_line
from mmdata.fingerprint import fingerprint
from mmdata.score.safe_loading import UNSAFE_WEIGHTS_ERRORS
from mmdata.select.scores.exact import on_grid, row_sums
from mmdata.select.scores.vector_score import blocks

_VERSION = 1
_LAYER = re.compile(r"(?:.*\.)?(\d+)\.(weight|bias)")


class EmbeddingHead:
    """Layers x -> W x + b over the vector of a picture, with nothing or a ReLU between them; one number comes out.

    Args:
        layers: (W, b) in order, float64 (out, in) and (out,); the last has out = 1.
        activation: between the layers.
    """

    reads_texts = False

    def __init__(self, layers: list[tuple[np.ndarray, np.ndarray]], activation: Literal["none", "relu"]) -> None:
        values = [[weight.tolist(), bias.tolist()] for weight, bias in layers]
        self.fingerprint = fingerprint("aesthetic", _VERSION, activation, values)
        if activation == "none":  # layers without an activation are one layer
            weight, bias = layers[0]
            for next_weight, next_bias in layers[1:]:
                weight, bias = next_weight @ weight, next_weight @ bias + next_bias
            layers = [(weight, bias)]
        self._layers = [(on_grid(weight.T), bias) for weight, bias in layers]
        self.width = len(self._layers[0][0])

    def score(self, pictures: np.ndarray, texts: np.ndarray | None) -> np.ndarray:
        """See `VectorScore.score`."""
        scores = np.empty(len(pictures), np.float32)
        for block in blocks(len(pictures), max(self.width, *(len(bias) for _, bias in self._layers))):
            scores[block] = self._score_block(pictures[block])
        return scores

    def _score_block(self, pictures: np.ndarray) -> np.ndarray:
        values = pictures.astype(np.float64)
        for number, (weight, bias) in enumerate(self._layers):
            if number:
                values = _to_half_grid(np.maximum(values, 0.0))
            values = values @ weight + bias
        return np.asarray(values[:, 0])


def _to_half_grid(values: np.ndarray) -> np.ndarray:
    """Rows rounded to 24 bits of their lengths, so that the product with a matrix on the grid is exact."""
    length = np.sqrt(row_sums(values * values))
    step = 2.0 ** (np.ceil(np.log2(np.where(length > 0, length, 1.0))) - 24)
    return np.asarray(np.rint(values / step[:, None]) * step[:, None])


def load_head(path: UPath, width: int, activation: Literal["none", "relu"]) -> EmbeddingHead:
    """Read a head's state dict; tensors only, no pickled object is ever loaded.

    Args:
        width: length of the vectors that it gets.

    Raises:
        UserError: the file is missing or holds other things than such layers, or takes vectors of another length.
    """
    tensors = _read_tensors(path)
    layers: dict[int, dict[str, np.ndarray]] = {}
    for name, tensor in tensors.items():
        place = _LAYER.fullmatch(name)
        number, part = (int(place[1]), place[2]) if place else (0, name)
        layers.setdefault(number, {})[part] = tensor
    chain = [layers[number] for number in sorted(layers)]
    if not all(set(layer) == {"weight", "bias"} and layer["weight"].ndim == 2 for layer in chain) or not chain:
        raise _problem(path, f"holds {', '.join(sorted(tensors)[:4]) or 'nothing'}, and no layers of weight and bias")
    pairs = [(layer["weight"], layer["bias"]) for layer in chain]
    widths = [pairs[0][0].shape[1], *(len(weight) for weight, _ in pairs)]
    fits = all(weight.shape == (out, into) for (weight, _), into, out in zip(pairs, widths, widths[1:], strict=False))
    if not fits or widths[-1] != 1 or any(len(bias) != len(weight) for weight, bias in pairs):
        raise _problem(path, f"has layers of {' -> '.join(map(str, widths))} numbers, which do not end in one")
    if widths[0] != width:
        raise _problem(path, f"takes vectors of {widths[0]} numbers, and the scorer of the corpus gives {width}")
    return EmbeddingHead(pairs, activation)


def _read_tensors(path: UPath) -> Mapping[str, np.ndarray]:
    import torch
    from safetensors.torch import load

    try:
        if path.suffix == ".safetensors":
            state = load(path.read_bytes())
        else:
            with path.open("rb") as file:
                state = torch.load(file, map_location="cpu", weights_only=True)
        return {str(name): tensor.double().numpy() for name, tensor in state.items()}
    except FileNotFoundError:
        raise _problem(path, "does not exist") from None
    except UNSAFE_WEIGHTS_ERRORS as error:
        raise _problem(path, f"holds more than tensors, or is damaged ({first_line(error)})") from None
    except (OSError, RuntimeError, ValueError, AttributeError, EOFError) as error:
        raise _problem(path, f"cannot be read ({first_line(error)})") from None


def _problem(path: UPath, what: str) -> UserError:
    return UserError(
        f"select.scores: the weights {path}: the file {what}. Remedy: give the state dict of a head that was trained "
        "on the vectors of this corpus's scorer, best as .safetensors."
    )
