"""Losses as sums over local rows; the trainer divides by one count over all ranks, taken before the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

CHUNK = 2048  # positions whose logits are held at once


def chunked_cross_entropy(
    hidden_ND: Tensor, labels_N: Tensor, head: Callable[[Tensor], Tensor], chunked: bool
) -> Tensor:
    """Cross-entropy summed over N positions, logits computed (and computed again in the backward pass) by chunks.

    Args:
        head: hidden states to logits.
        chunked: False holds all logits at once.
    """

    def one(hidden: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(head(hidden).float(), labels, reduction="sum")

    if not len(labels_N):
        return _nothing(hidden_ND, head)
    if not chunked:
        return one(hidden_ND, labels_N)
    sums = [
        checkpoint(one, hidden, labels, use_reentrant=False)
        for hidden, labels in zip(hidden_ND.split(CHUNK), labels_N.split(CHUNK), strict=True)
    ]
    return torch.stack(sums).sum()


def _nothing(hidden_0D: Tensor, head: Callable[[Tensor], Tensor]) -> Tensor:
    """Zero, by way of every parameter that a loss would come by: other ranks wait for their gradients."""
    blank = torch.cat([hidden_0D, hidden_0D.new_zeros(1, hidden_0D.shape[1])])
    return head(blank).sum() * 0


def chunked_kl(known_ND: Tensor, hidden_ND: Tensor, known_head: Any, head: Any) -> Tensor:
    """KL(known || model) of the next-token distributions, summed over N positions, by chunks."""

    def one(known: Tensor, hidden: Tensor) -> Tensor:
        with torch.no_grad():
            target = known_head(known).float().log_softmax(-1)
        return F.kl_div(head(hidden).float().log_softmax(-1), target, reduction="sum", log_target=True)

    if not len(hidden_ND):
        return _nothing(hidden_ND, head)
    pairs = zip(known_ND.split(CHUNK), hidden_ND.split(CHUNK), strict=True)
    return torch.stack([checkpoint(one, known, hidden, use_reentrant=False) for known, hidden in pairs]).sum()


@dataclass(frozen=True)
class PairLogits:
    """What a contrastive loss is computed from: local rows against the columns of all ranks.

    Args:
        media_BD, text_BD: local features, unit length.
        all_media_ND, all_text_ND: of all ranks, the local ones among them.
        own_B: column of each local row's own pair.
        weight_B: of local rows; 0 is padding or another modality.
        usable_N: bool, columns that hold a pair of this modality.
        same_BN: bool, columns with the row's own caption, which are no negatives; its own column among them.
        scale, bias: of the logits.
    """

    media_BD: Tensor
    text_BD: Tensor
    all_media_ND: Tensor
    all_text_ND: Tensor
    own_B: Tensor
    weight_B: Tensor
    usable_N: Tensor
    same_BN: Tensor
    scale: Tensor
    bias: Tensor

    def cosines(self) -> tuple[Tensor, Tensor, Tensor]:
        """Media to text B,N, text to media B,N, and which columns are the row's own B,N."""
        own_BN = F.one_hot(self.own_B, len(self.usable_N)).bool()
        return self.media_BD @ self.all_text_ND.T, self.text_BD @ self.all_media_ND.T, own_BN

    def negatives(self) -> Tensor:
        """bool B,N: columns that a row must be told apart from."""
        return self.usable_N[None] & ~self.same_BN


def info_nce(pairs: PairLogits, _margin: float = 0.0) -> Tensor:
    """CLIP's symmetric cross-entropy (Radford et al. 2021), summed over local rows."""
    to_text, to_media, own = pairs.cosines()
    seen = pairs.negatives() | own
    total = torch.zeros((), device=to_text.device)
    for cosine in (to_text, to_media):
        logits = (pairs.scale.exp() * cosine.float()).masked_fill(~seen, float("-inf"))
        total = total + (F.cross_entropy(logits, pairs.own_B, reduction="none") * pairs.weight_B).sum() / 2
    return total


def siglip(pairs: PairLogits, _margin: float = 0.0) -> Tensor:
    """The pairwise sigmoid loss (Zhai et al. 2023), summed over local rows and all columns."""
    to_text, _, own = pairs.cosines()
    logits = pairs.scale.exp() * to_text.float() + pairs.bias
    sign = own.float() * 2 - 1
    each = -F.logsigmoid(sign * logits) * (pairs.negatives() | own)
    return (each.sum(1) * pairs.weight_B).sum()


def triplet(pairs: PairLogits, margin: float) -> Tensor:
    """The hardest-negative triplet loss (VSE++, Faghri et al. 2018), both directions, summed over local rows."""
    to_text, to_media, own = pairs.cosines()
    negatives = pairs.negatives()
    total = torch.zeros((), device=to_text.device)
    for cosine in (to_text.float(), to_media.float()):
        hardest = cosine.masked_fill(~negatives, -2.0).amax(1)  # below any cosine: without a negative nothing is lost
        right = (cosine * own).sum(1)
        total = total + (F.relu(margin + hardest - right) * pairs.weight_B).sum() / 2
    return total


PAIR_LOSSES: dict[str, Callable[[PairLogits, float], Tensor]] = {
    "infonce": info_nce,
    "siglip": siglip,
    "triplet": triplet,
}


class _GatherWithGrad(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, local: Tensor, group: Any) -> Tensor:
        ctx.group = group
        return gather(local, group)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        grad = grads[0].contiguous()
        dist.all_reduce(grad, group=ctx.group)
        rank, world = dist.get_rank(ctx.group), dist.get_world_size(ctx.group)
        return grad.chunk(world)[rank], None


def gather_with_grad(local: Tensor, group: Any) -> Tensor:
    """Rows of all ranks; each rank's gradient to a row flows back to the rank that it came from, summed."""
    return _GatherWithGrad.apply(local, group) if _world(group) > 1 else local


def gather(local: Tensor, group: Any) -> Tensor:
    """Rows of all ranks, in the order of ranks, without gradient."""
    if (world := _world(group)) == 1:
        return local.detach()
    parts = [torch.empty_like(local) for _ in range(world)]
    dist.all_gather(parts, local.detach().contiguous(), group=group)
    return torch.cat(parts)


def gather_own(local: Tensor, group: Any) -> Tensor:
    """Rows of all ranks; only the local ones carry a gradient, `world` times, since each rank's loss is a share."""
    if (world := _world(group)) == 1:
        return local
    parts = list(gather(local, group).chunk(world))
    parts[dist.get_rank(group)] = local * world - (local * (world - 1)).detach()
    return torch.cat(parts)


def _world(group: Any) -> int:
    return dist.get_world_size(group) if dist.is_initialized() else 1
