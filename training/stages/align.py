"""Stage 1: contrastive alignment of towers, at any batch size in the memory of a micro-batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from training.config import Align
from training.data.examples import Batch
from training.distributed.mesh import Mesh, sync_gradients
from training.model.losses import PAIR_LOSSES, PairLogits, gather, gather_own, gather_with_grad

KINDS = ("image", "video", "audio")


def kind_weights(batch: Batch) -> Tensor:
    """float B,3: 1 where a real sample has a picture, a clip, a sound."""
    count = len(batch["weight"])
    device = batch["weight"].device
    has = torch.zeros(count, 3, device=device)
    clip = torch.zeros(count, dtype=torch.bool, device=device)
    clip[: len(batch["is_clip"])] = batch["is_clip"]
    has[batch["picture_of"], 0] = 1.0
    has[:, 1] = has[:, 0] * clip
    has[:, 0] = has[:, 0] * ~clip
    has[batch["sound_of"], 2] = 1.0
    return has * batch["weight"][:, None]


def pair_losses(found: dict[str, Tensor], batch: Batch, align: Align, mesh: Mesh) -> dict[str, Tensor]:
    """The loss of each pairing: this rank's share, which sums over ranks to the mean over all pairs of the kind.

    Args:
        found: text, visual, audio (B,D of unit length), scale, bias.
        batch: weight, group, and which sample has which media.
    """
    group, rank, world = mesh.dp_group, mesh.rank("dp"), mesh.size("dp")
    own_weights = kind_weights(batch)
    weights, groups = gather(own_weights, group), gather(batch["group"], group)
    collect = gather_with_grad if align.gather_with_grad else gather_own
    features = {name: found[name] for name in ("text", "visual", "audio") if name in found}
    gathered = {name: collect(tensor, group) for name, tensor in features.items()}
    count = len(own_weights)
    losses: dict[str, Tensor] = {}
    for at, kind in enumerate(KINDS):
        total = weights[:, at].sum()
        name = "audio" if kind == "audio" else "visual"
        if name not in features or kind not in align.weights:
            continue
        whole = not align.local_loss
        own = torch.arange(len(weights), device=weights.device)
        own = own if whole else own[rank * count : (rank + 1) * count]
        pairs = PairLogits(
            media_BD=gathered[name] if whole else features[name],
            text_BD=gathered["text"] if whole else features["text"],
            all_media_ND=gathered[name],
            all_text_ND=gathered["text"],
            own_B=own,
            weight_B=weights[own, at],
            usable_N=weights[:, at] > 0,
            same_BN=groups[own][:, None] == groups[None],
            scale=found["scale"],
            bias=found["bias"],
        )
        share = PAIR_LOSSES[align.loss](pairs, align.margin) / total.clamp_min(1)
        losses[kind] = share / world if whole else share
    return losses


class AlignStep:
    """Forward and backward of one batch.

    With micro-batches features are computed once without a graph, the loss on all of them together, and each
    micro-batch again with the same dropout for its share of the gradient (GradCache, Gao et al. 2021): the gradient
    is that of the whole batch, temperature included.

    Args:
        model: the dual encoder, wrapped for its parallelism.
    """

    def __init__(self, model: nn.Module, align: Align, mesh: Mesh, autocast: Any, scaled: Any) -> None:
        self._model, self._align, self._mesh = model, align, mesh
        self._autocast, self._scaled = autocast, scaled
        self._masked = align.masked_weight > 0

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Leaves gradients in the parameters; gives this rank's shares of the losses."""
        micro = self._align.micro_batch or len(batch["weight"])
        chunks = list(split_pairs(batch, micro))
        states, parts = [], []
        for chunk in chunks if len(chunks) > 1 else []:
            states.append(_rng_state(self._mesh.device))
            with torch.no_grad(), self._cast():
                parts.append(self._model(chunk))
        if not parts:
            return self._whole(batch)
        names = [name for name in ("text", "visual", "audio") if name in parts[0]]
        leaves = {name: torch.cat([part[name] for part in parts]) for name in names}
        leaves |= {name: parts[0][name] for name in ("scale", "bias")}
        leaves = {name: tensor.detach().clone().requires_grad_() for name, tensor in leaves.items()}
        shares = pair_losses(leaves, batch, self._align, self._mesh)
        self._scaled(self._total(shares)).backward()
        hidden = self._hidden_count(batch) if self._masked else None
        for at, chunk in enumerate(chunks):
            last = at == len(chunks) - 1
            with sync_gradients(self._model, last):
                _set_rng_state(self._mesh.device, states[at])
                with self._cast():
                    found = self._model(chunk, self._masked)
                surrogate = torch.zeros((), device=self._mesh.device)
                for name in names:
                    if (grad := leaves[name].grad) is not None:
                        surrogate = surrogate + (found[name] * grad[at * micro : (at + 1) * micro]).sum()
                for name in ("scale", "bias"):  # its gradient is already that of the whole batch
                    grad = leaves[name].grad
                    surrogate = surrogate + (found[name] * (grad if last and grad is not None else 0)).sum()
                if hidden is not None:
                    share = found["masked"] / hidden
                    shares["masked"] = shares.get("masked", 0) + share.detach()
                    surrogate = surrogate + self._scaled(share * self._align.masked_weight * self._mesh.size("dp"))
                surrogate.backward()
        return {name: share.detach() for name, share in shares.items()}

    def _whole(self, batch: Batch) -> dict[str, Tensor]:
        with sync_gradients(self._model, True):
            with self._cast():
                found = self._model(batch, self._masked)
            shares = pair_losses(found, batch, self._align, self._mesh)
            total = self._total(shares) + 0 * (found["scale"] + found["bias"]).sum()  # no parameter without a gradient
            if self._masked:
                shares["masked"] = found["masked"] / self._hidden_count(batch)
                total = total + shares["masked"] * self._align.masked_weight * self._mesh.size("dp")
            self._scaled(total).backward()
        return {name: share.detach() for name, share in shares.items()}

    def _total(self, shares: dict[str, Tensor]) -> Tensor:
        """Times the ranks, since gradients are averaged over them."""
        weighted = [self._align.weights[name] * share for name, share in shares.items()]
        return torch.stack(weighted).sum() * self._mesh.size("dp")

    def _hidden_count(self, batch: Batch) -> Tensor:
        """About how many cells are hidden over all ranks: the share of them that the ratio asks for."""
        model: Any = getattr(self._model, "module", self._model)
        rows, columns = model.masked.grid
        pictures = torch.tensor(float(len(batch["picture_of"])), device=self._mesh.device)
        return (self._mesh.sum(pictures) * rows * columns * self._align.mask_ratio).clamp_min(1)

    def _cast(self) -> AbstractContextManager[Any]:
        return self._autocast()


def split_pairs(batch: Batch, micro: int) -> Iterator[Batch]:
    """A batch's samples in runs of `micro`, each with its own media."""
    count = len(batch["weight"])
    for start in range(0, count, micro):
        stop = min(start + micro, count)
        part = {name: batch[name][start:stop] for name in ("text", "weight", "group", "is_clip")}
        for kind in ("picture", "sound"):
            of = batch[f"{kind}_of"]
            chosen = (of >= start) & (of < stop)
            part[f"{kind}_of"] = of[chosen] - start
            part[kind] = batch[kind][chosen] if batch[kind] is not None and bool(chosen.any()) else None
        yield part


def _rng_state(device: torch.device) -> Any:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_rng_state(device: torch.device, state: Any) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)
