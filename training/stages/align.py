"""Stage 1: contrastive alignment of the towers, at any batch size in the memory of a micro-batch."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from training.config import Align
from training.data.batch_types import Batch, PairBatch, to_device
from training.distributed.gradients import Autocast, ScaleLoss, sync_gradients
from training.distributed.process_mesh import Mesh
from training.model.encoders import DualEncoder
from training.model.losses import PAIR_LOSSES, PairLogits

KINDS = ("image", "video", "audio")
FEATURES = ("text", "visual", "audio")  # of DualEncoder.forward; the last is absent without a sound tower
SCALARS = ("scale", "bias", "match_scale", "match_bias")  # of the logits; the last two only with loss `bce`
MAX_LOGIT_SCALE = math.log(100)


@torch.no_grad()
def limit_scale(model: DualEncoder, align: Align) -> None:
    """Keep the logits within 100 times the cosine, as CLIP does with its loss (Radford et al. 2021)."""
    if "infonce" in align.pair_losses:
        model.logit_scale.clamp_(max=MAX_LOGIT_SCALE)


def kind_weights(batch: PairBatch) -> Tensor:
    """float B,3: 1 where a real sample has a picture, a clip, a sound."""
    count, device = len(batch.weight), batch.weight.device
    weights = torch.zeros(count, len(KINDS), device=device)
    is_clip = torch.zeros(count, dtype=torch.bool, device=device)
    is_clip[: len(batch.is_clip)] = batch.is_clip
    weights[batch.picture_of, 0] = 1.0
    weights[:, 1] = weights[:, 0] * is_clip
    weights[:, 0] = weights[:, 0] * ~is_clip
    weights[batch.sound_of, 2] = 1.0
    return weights * batch.weight[:, None]


def pair_losses(outputs: dict[str, Tensor], batch: PairBatch, align: Align, mesh: Mesh) -> dict[str, Tensor]:
    """Each loss of each pairing (of KINDS): this rank's share. The shares sum to the mean over all pairs of the kind.

    Args: outputs: FEATURES (B,D of unit length) and SCALARS of the dual encoder.
    Returns: By the names of `Align.share_name`.
    """
    rank, world = mesh.rank("dp"), mesh.size("dp")
    local_weights = kind_weights(batch)
    weights, groups = mesh.gather(local_weights), mesh.gather(batch.group)
    features = {name: outputs[name] for name in FEATURES if name in outputs}
    gathered = {name: _gather_features(tensor, align, mesh) for name, tensor in features.items()}
    count = len(local_weights)
    columns = torch.arange(len(weights), device=weights.device)
    if align.local_loss:
        columns = columns[rank * count : (rank + 1) * count]
    losses: dict[str, Tensor] = {}
    for kind_at, kind in enumerate(KINDS):
        name = "audio" if kind == "audio" else "visual"
        if name not in features or kind not in align.weights:
            continue
        rows = features if align.local_loss else gathered
        pairs = PairLogits(
            media_BD=rows[name],
            text_BD=rows["text"],
            all_media_ND=gathered[name],
            all_text_ND=gathered["text"],
            own_B=columns,
            weight_B=weights[columns, kind_at],
            usable_N=weights[:, kind_at] > 0,
            same_BN=groups[columns][:, None] == groups[None],
            scale=outputs["scale"],
            bias=outputs["bias"],
        )
        count_of_kind = weights[:, kind_at].sum().clamp_min(1)
        for loss_name in align.pair_losses:
            if loss_name == "bce":
                pairs = replace(pairs, scale=outputs["match_scale"], bias=outputs["match_bias"])
            else:
                pairs = replace(pairs, scale=outputs["scale"], bias=outputs["bias"])
            loss = PAIR_LOSSES[loss_name](pairs, align.margin) / count_of_kind
            losses[align.share_name(kind, loss_name)] = loss if align.local_loss else loss / world
    return losses


def _gather_features(local_BD: Tensor, align: Align, mesh: Mesh) -> Tensor:
    """Features N,D of all ranks.

    With `gather_with_grad` each rank's gradient to a row flows back to the rank of the row. Without it only the local
    rows carry a gradient. They carry it `world` times, since each rank's loss is divided by `world`.
    """
    if align.gather_with_grad or (world := mesh.size("dp")) == 1:
        return mesh.gather(local_BD)
    rows = list(mesh.gather(local_BD.detach()).chunk(world))
    rows[mesh.rank("dp")] = local_BD * world - (local_BD * (world - 1)).detach()
    return torch.cat(rows)


class AlignStep:
    """Forward and backward pass of one batch.

    With micro-batches, the features are computed once without a graph, and then the loss on all of them together.
    Each micro-batch is computed again, with the same dropout, for its share of the gradient (GradCache, Gao et al.
    2021). The gradient is that of the whole batch, temperature included.

    Args: model: the dual encoder, wrapped for its parallelism.
    """

    def __init__(self, model: nn.Module, align: Align, mesh: Mesh, autocast: Autocast, scaled: ScaleLoss) -> None:
        self._model, self._align, self._mesh = model, align, mesh
        self._autocast, self._scaled = autocast, scaled
        self._masked = bool(align.masked_weights)

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Leave gradients in the parameters, and return this rank's shares of the losses."""
        assert isinstance(batch, PairBatch)
        micro, device = self._align.micro_batch or len(batch.weight), self._mesh.device
        if micro >= len(batch.weight):
            return self._whole(to_device(batch, device))
        chunks = [to_device(chunk, device) for chunk in batch.split(micro)]
        batch = to_device(replace(batch, text=batch.text[:0], picture=None, sound=None), device)
        states, leaves = self._features(chunks)
        shares = pair_losses(leaves, batch, self._align, self._mesh)
        self._scaled(self._total(shares)).backward()
        counts = self._counts(batch)
        for at, chunk in enumerate(chunks):
            is_last = at == len(chunks) - 1
            with sync_gradients(self._model, is_last):
                _set_rng_state(self._mesh.device, states[at])
                with self._autocast():
                    outputs = self._model(chunk, self._masked)
                # Its gradient by the parameters is the cached gradient by the features, carried through the model.
                surrogate = torch.zeros((), device=self._mesh.device)
                for name in FEATURES:
                    if name in leaves and (grad := leaves[name].grad) is not None:
                        surrogate = surrogate + (outputs[name] * grad[at * micro : (at + 1) * micro]).sum()
                for name in _scalars(outputs):  # their gradient is that of the whole batch already: add it once
                    grad = leaves[name].grad
                    surrogate = surrogate + (outputs[name] * (grad if is_last and grad is not None else 0)).sum()
                parts = {name: outputs[name] / count for name, count in counts.items()}
                for name, part in parts.items():
                    shares[name] = shares.get(name, 0) + part.detach()
                if parts:
                    surrogate = surrogate + self._scaled(self._total(parts))
                surrogate.backward()
        return {name: share.detach() for name, share in shares.items()}

    def _features(self, chunks: list[PairBatch]) -> tuple[list[Tensor], dict[str, Tensor]]:
        """The state of the random generator before each chunk, and the whole batch's outputs as leaves of a graph."""
        states, parts = [], []
        for chunk in chunks:
            states.append(_rng_state(self._mesh.device))
            with torch.no_grad(), self._autocast():
                parts.append(self._model(chunk))
        outputs = {name: torch.cat([part[name] for part in parts]) for name in FEATURES if name in parts[0]}
        outputs |= {name: parts[0][name] for name in _scalars(parts[0])}
        return states, {name: tensor.detach().clone().requires_grad_() for name, tensor in outputs.items()}

    def _whole(self, batch: PairBatch) -> dict[str, Tensor]:
        with sync_gradients(self._model, True):
            with self._autocast():
                outputs = self._model(batch, self._masked)
            shares = pair_losses(outputs, batch, self._align, self._mesh)
            # A loss need not use all scalars. DDP waits for the gradient of every parameter, so give them one of 0.
            shares |= {name: outputs[name] / count for name, count in self._counts(batch).items()}
            total = self._total(shares) + 0 * torch.stack([outputs[name] for name in _scalars(outputs)]).sum()
            self._scaled(total).backward()
        return {name: share.detach() for name, share in shares.items()}

    def _total(self, shares: dict[str, Tensor]) -> Tensor:
        """The weighted loss, times the number of ranks, because gradients are averaged over them."""
        weighted = [self._align.loss_weights[name] * share for name, share in shares.items()]
        return torch.stack(weighted).sum() * self._mesh.size("dp")

    def _counts(self, batch: PairBatch) -> dict[str, Tensor]:
        """What the model's sums are divided by: how much is hidden on average over all ranks, at least 1."""
        if not self._masked:
            return {}
        model: Any = getattr(self._model, "module", self._model)
        expected = model.masked.expected(batch)
        totals = self._mesh.sum(torch.stack([count.float() for count in expected.values()]))
        return dict(zip(expected, totals.clamp_min(1), strict=True))


def _scalars(outputs: dict[str, Tensor]) -> list[str]:
    return [name for name in SCALARS if name in outputs]


def _rng_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_rng_state(device: torch.device, state: Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)
