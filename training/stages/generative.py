"""Stages 2 and 3: next-token losses on rows of tokens, divided by one count over all ranks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from mmdata.errors import DataError
from training.config import Generative
from training.data.batch_types import Batch, RowBatch, to_device
from training.distributed.gradients import Autocast, ScaleLoss, sync_gradients
from training.distributed.process_mesh import Mesh


class GenerativeStep:
    """Forward and backward pass of one batch of rows.

    Args: model: the multimodal language model, wrapped for its parallelism.
    """

    def __init__(self, model: nn.Module, stage: Generative, mesh: Mesh, autocast: Autocast, scaled: ScaleLoss) -> None:
        self._model, self._stage, self._mesh = model, stage, mesh
        self._autocast, self._scaled = autocast, scaled
        self._kl = stage.kl_weight > 0

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Leave gradients in the parameters, and return this rank's shares of the losses.

        Raises DataError: no token of the batch, on any rank, is to be learned.
        """
        assert isinstance(batch, RowBatch)
        tokens, device = global_tokens(batch, self._mesh), self._mesh.device
        shares: dict[str, Tensor] = {}
        chunks = list(batch.split(self._stage.micro_batch or len(batch.input_ids)))
        for at, chunk in enumerate(chunks):
            with sync_gradients(self._model, at == len(chunks) - 1):
                with self._autocast():
                    sums = self._model(
                        with_stand_ins(to_device(chunk, device), self._model), self._kl, self._stage.chunked_loss
                    )
                total = sums["loss"] / tokens
                shares["text"] = shares.get("text", 0) + total.detach()
                if self._kl:
                    divergence = sums["kl"] / tokens
                    shares["kl"] = shares.get("kl", 0) + divergence.detach()
                    total = total + self._stage.kl_weight * divergence
                self._scaled(total * self._mesh.size("dp")).backward()
        return shares


def global_tokens(batch: RowBatch, mesh: Mesh) -> float:
    """The number of learned tokens of a batch over all ranks. Raises DataError: there are none."""
    tokens = mesh.sum_on_host(batch.most_learned, "dp")
    if not tokens:
        raise DataError(
            "a whole batch has no token to learn: every label is masked. Remedy: a larger max_text_tokens, since "
            "prompts may fill it, or other tasks."
        )
    return tokens


def with_stand_ins(batch: RowBatch, model: nn.Module) -> RowBatch:
    """The batch with one medium of zeros of each kind that this rank's rows lack.

    So every rank runs every part of the model, and none waits for the gradients of another. The stand-in belongs to no
    row, and its tokens are multiplied by zero.
    """
    inner: Any = getattr(model, "module", model)
    device = batch.input_ids.device
    if batch.picture.data is None:
        pixels = torch.zeros(1, 3, *inner.vision.preprocess.size, dtype=torch.uint8, device=device)
        batch = replace(batch, picture=replace(batch.picture, data=pixels))
    if inner.audio is not None and batch.sound.data is None:
        wave = torch.zeros(1, inner.audio.samples, device=device)
        batch = replace(batch, sound=replace(batch.sound, data=wave))
    return batch
