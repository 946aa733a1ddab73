"""Losses as sums over local rows; the caller divides them by a count over all ranks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

CHUNK_POSITIONS = 2048  # positions whose logits are in memory at once


def chunked_cross_entropy(
    hidden_ND: Tensor, labels_N: Tensor, head: Callable[[Tensor], Tensor], chunked: bool
) -> Tensor:
    """Cross-entropy summed over N positions.

    Args:
        head: hidden states to logits.
        chunked: compute the logits in chunks, and again in the backward pass, so that never all are in memory.
    """

    def chunk_loss(hidden: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(head(hidden).float(), labels, reduction="sum")

    if not len(labels_N):
        return _zero_loss(hidden_ND, head)
    if not chunked:
        return chunk_loss(hidden_ND, labels_N)
    return _sum_in_chunks(chunk_loss, hidden_ND, labels_N)


def _zero_loss(hidden_0D: Tensor, head: Callable[[Tensor], Tensor]) -> Tensor:
    """Zero, with a gradient of zero for all parameters of a loss, because other ranks wait for these gradients."""
    blank = torch.cat([hidden_0D, hidden_0D.new_zeros(1, hidden_0D.shape[1])])
    return head(blank).sum() * 0


def chunked_kl(
    reference_ND: Tensor,
    hidden_ND: Tensor,
    reference_head: Callable[[Tensor], Tensor],
    head: Callable[[Tensor], Tensor],
    counts_N: Tensor | None = None,
) -> Tensor:
    """KL(reference || model) of the next-token distributions, summed over N positions, in chunks of hidden states.

    Args: counts_N: bool; whether the position counts; None: all do.
    """

    def chunk_loss(reference: Tensor, hidden: Tensor, counts: Tensor) -> Tensor:
        with torch.no_grad():
            target = reference_head(reference).float().log_softmax(-1)
        divergence_NV = F.kl_div(head(hidden).float().log_softmax(-1), target, reduction="none", log_target=True)
        return (divergence_NV.sum(1) * counts).sum()

    if not len(hidden_ND):
        return _zero_loss(hidden_ND, head)
    if counts_N is None:
        counts_N = torch.ones(len(hidden_ND), dtype=torch.bool, device=hidden_ND.device)
    return _sum_in_chunks(chunk_loss, reference_ND, hidden_ND, counts_N)


def _sum_in_chunks(chunk_loss: Callable[..., Tensor], *by_position: Tensor) -> Tensor:
    chunks = zip(*(tensor_N.split(CHUNK_POSITIONS) for tensor_N in by_position), strict=True)
    return torch.stack([checkpoint(chunk_loss, *chunk, use_reentrant=False) for chunk in chunks]).sum()


@dataclass(frozen=True)
class PairLogits:
    """The inputs of a contrastive loss: B rows of this rank against N columns of all ranks."""

    media_BD: Tensor  # features of the rows, of unit length
    text_BD: Tensor  # features of the rows, of unit length
    all_media_ND: Tensor  # features of the columns
    all_text_ND: Tensor  # features of the columns
    own_B: Tensor  # column of each row's own pair
    weight_B: Tensor  # 0 for a row of padding or of another kind of medium
    usable_N: Tensor  # bool; columns that hold a pair of this kind
    same_BN: Tensor  # bool; columns with the row's caption, its own column among them. They are no negatives
    scale: Tensor  # of the logits: exp(scale) multiplies the cosine, and SigLIP adds the bias
    bias: Tensor  # of the logits: exp(scale) multiplies the cosine, and SigLIP adds the bias

    def cosines(self) -> tuple[Tensor, Tensor, Tensor]:
        """Cosines of media to text B,N and of text to media B,N, and a mask of each row's own column B,N."""
        column_N = torch.arange(len(self.usable_N), device=self.own_B.device)
        own_BN = self.own_B[:, None] == column_N  # one_hot would wait for the device
        return self.media_BD @ self.all_text_ND.T, self.text_BD @ self.all_media_ND.T, own_BN

    def negatives(self) -> Tensor:
        """bool B,N: columns that a row must not match."""
        return self.usable_N[None] & ~self.same_BN


def info_nce(pairs: PairLogits, _margin: float = 0.0) -> Tensor:
    """CLIP's symmetric cross-entropy (Radford et al. 2021), summed over local rows."""
    to_text, to_media, own = pairs.cosines()
    compared = pairs.negatives() | own
    total = torch.zeros((), device=to_text.device)
    for cosine in (to_text, to_media):
        logits = (pairs.scale.exp() * cosine.float()).masked_fill(~compared, float("-inf"))
        total = total + (F.cross_entropy(logits, pairs.own_B, reduction="none") * pairs.weight_B).sum() / 2
    return total


def siglip(pairs: PairLogits, _margin: float = 0.0) -> Tensor:
    """The pairwise sigmoid loss (Zhai et al. 2023), summed over local rows and all columns."""
    to_text, _, own = pairs.cosines()
    logits = pairs.scale.exp() * to_text.float() + pairs.bias
    sign = own.float() * 2 - 1
    losses_BN = -F.logsigmoid(sign * logits) * (pairs.negatives() | own)
    return (losses_BN.sum(1) * pairs.weight_B).sum()


def triplet(pairs: PairLogits, margin: float) -> Tensor:
    """The hardest-negative triplet loss (VSE++, Faghri et al. 2018), both directions, summed over local rows."""
    to_text, to_media, own = pairs.cosines()
    negatives = pairs.negatives()
    total = torch.zeros((), device=to_text.device)
    for cosine in (to_text.float(), to_media.float()):
        hardest = cosine.masked_fill(~negatives, -2.0).amax(1)  # -2 is below any cosine: no negative gives no loss
        positive = (cosine * own).sum(1)
        total = total + (F.relu(margin + hardest - positive) * pairs.weight_B).sum() / 2
    return total


def binary_matching(pairs: PairLogits, _margin: float = 0.0) -> Tensor:
    """Binary cross-entropy of "do these match?", summed over local rows: each pair against its hardest mismatches.

    A row's own pair counts as much as its hardest caption and its hardest medium together, as in the image-text
    matching of ALBEF (Li et al. 2021), here on the scaled cosine.
    """
    to_text, to_media, own = pairs.cosines()
    negatives = pairs.negatives()
    has_negative_B = negatives.any(1)

    def logit(cosine_B: Tensor) -> Tensor:
        return pairs.scale.exp() * cosine_B + pairs.bias

    losses_B = F.softplus(-logit((to_text.float() * own).sum(1)))
    for cosine in (to_text.float(), to_media.float()):
        hardest = cosine.masked_fill(~negatives, -2.0).amax(1)
        losses_B = losses_B + F.softplus(logit(hardest)) * has_negative_B / 2
    return (losses_B * pairs.weight_B).sum() / 2


PAIR_LOSSES: dict[str, Callable[[PairLogits, float], Tensor]] = {
    "infonce": info_nce,
    "siglip": siglip,
    "triplet": triplet,
    "bce": binary_matching,
}
