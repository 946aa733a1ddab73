"""Stages 2 and 3: next-token losses on packed rows, divided by one count over all ranks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from mmdata.errors import DataError
from training.config import Generative
from training.data.examples import Batch
from training.data.tokens import IGNORED
from training.distributed.mesh import Mesh, sync_gradients

ROWS = ("input_ids", "labels", "position_ids", "segment")


def learned_tokens(batch: Batch) -> Tensor:
    """Tokens that a loss is computed on, a float64 scalar."""
    return (batch["labels"][:, 1:] != IGNORED).sum().double()


class GenerativeStep:
    """Forward and backward of one batch of rows.

    Args:
        model: the multimodal language model, wrapped for its parallelism.
    """

    def __init__(self, model: nn.Module, stage: Generative, mesh: Mesh, autocast: Any, scaled: Any) -> None:
        self._model, self._stage, self._mesh = model, stage, mesh
        self._autocast, self._scaled = autocast, scaled
        self._kl = stage.kl_weight > 0

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Leaves gradients in the parameters; gives this rank's shares of the losses.

        Raises:
            DataError: not one token of the batch, over all ranks, is to be learned.
        """
        tokens = global_tokens(batch, self._mesh)
        shares: dict[str, Tensor] = {}
        chunks = list(split_rows(batch, self._stage.micro_batch or len(batch["input_ids"])))
        for at, chunk in enumerate(chunks):
            with sync_gradients(self._model, at == len(chunks) - 1):
                with self._autocast():
                    sums = self._model(with_stand_in(chunk, self._model), self._kl, self._stage.chunked_loss)
                total = sums["loss"] / tokens
                shares["text"] = shares.get("text", 0) + total.detach()
                if self._kl:
                    divergence = sums["kl"] / tokens
                    shares["kl"] = shares.get("kl", 0) + divergence.detach()
                    total = total + self._stage.kl_weight * divergence
                self._scaled(total * self._mesh.size("dp")).backward()
        return shares


def global_tokens(batch: Batch, mesh: Mesh) -> Tensor:
    """Learned tokens of a batch over all ranks.

    Raises:
        DataError: there are none.
    """
    tokens = mesh.sum(learned_tokens(batch))
    if not bool(tokens > 0):
        raise DataError(
            "a whole batch has no token to learn: every label is masked. Remedy: a larger max_text_tokens, since "
            "prompts may fill it, or other tasks."
        )
    return tokens.float()


def split_rows(batch: Batch, micro: int) -> Iterator[Batch]:
    """A batch's rows in runs of `micro`, each with its own media."""
    for start in range(0, len(batch["input_ids"]), micro):
        stop = start + micro
        part: Batch = {name: batch[name][start:stop] for name in ROWS}
        for kind in ("picture", "sound"):
            row = batch[f"{kind}_row"]
            chosen = (row >= start) & (row < stop)
            part[f"{kind}_row"] = row[chosen] - start
            part[f"{kind}_segment"], part[f"{kind}_start"] = (
                batch[f"{kind}_segment"][chosen],
                batch[f"{kind}_start"][chosen],
            )
            part[kind] = batch[kind][chosen] if batch[kind] is not None and bool(chosen.any()) else None
        yield part


def with_stand_in(batch: Batch, model: nn.Module) -> Batch:
    """A medium of each kind where this rank's rows have none: its tokens count zero times, and no rank waits."""
    inner: Any = getattr(model, "module", model)
    device = batch["input_ids"].device
    if batch["picture"] is None:
        shape = (1, 3, *inner.vision.preprocess.size)
        batch = {**batch, "picture": torch.zeros(shape, dtype=torch.uint8, device=device)}
    if inner.audio is not None and batch["sound"] is None:
        batch = {**batch, "sound": torch.zeros(1, inner.audio.samples, device=device)}
    return batch
