"""The small model of a comparison: a linear head on each of two frozen towers. All seeds are trained at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.compare.recall import ranks

FIRST_TEMPERATURE, MAX_SCALE = 0.07, 100.0  # of CLIP (Radford et al. 2021)
_SEEDS_TOGETHER = 10


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the heads are trained; the same for all arms.

    Args:
        steps: optimiser steps. batch: pairs a step.
        lr: peak of AdamW's learning rate, which falls by a cosine after `warmup` steps.
        width: of the common space.
    """

    steps: int = 300
    batch: int = 128
    lr: float = 3e-3
    warmup: int = 20
    weight_decay: float = 0.1
    width: int = 128

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        return self.lr * min(1.0, (step + 1) / self.warmup) * 0.5 * (1 + math.cos(math.pi * step / self.steps))


@dataclass(frozen=True, slots=True)
class Frozen:
    """What the frozen towers give for pairs.

    Args:
        image: float32 N,D. text: float32 N,E.
        picture, caption: int64 N, which picture and which caption it is: pairs that share one are no negatives of one
            another.
    """

    image: Tensor
    text: Tensor
    picture: Tensor
    caption: Tensor

    def same(self, rows: Tensor) -> Tensor:
        """bool …,B,B for rows …,B: whether two of them share the picture or the caption."""
        picture, caption = self.picture[rows], self.caption[rows]
        return (picture[..., :, None] == picture[..., None, :]) | (caption[..., :, None] == caption[..., None, :])


class Heads(nn.Module):
    """A linear head of each seed on one tower: S maps D -> width.

    They start at random, so that whatever they know they have learned from the arm. A seed's first weights depend on
    the seed and the sizes alone: they are the same in every arm.
    """

    def __init__(self, seeds: list[int], tower: int, size: int, width: int) -> None:
        super().__init__()
        generators = [torch.Generator().manual_seed(2 * seed + tower) for seed in seeds]
        first = [torch.randn((size, width), generator=generator) for generator in generators]
        self.weight_SDW = nn.Parameter(torch.stack(first) / math.sqrt(size))

    def forward(self, inputs_SBD: Tensor) -> Tensor:
        """S,B,width of unit length."""
        return F.normalize(inputs_SBD @ self.weight_SDW, dim=-1)


def train_and_rank(
    frozen: Frozen,
    pool: np.ndarray,
    held_out: np.ndarray,
    seeds: list[int],
    recipe: Recipe,
    advance: Callable[[int], None] = lambda steps: None,
) -> np.ndarray:
    """Train the heads of each seed on an arm, and rank the held-out pairs.

    Args:
        pool: int64, the arm's rows, ascending; a row that is repeated stands here so many times.
        held_out: int64, rows.
        advance: called with the steps (of one seed) that were just taken.

    Returns:
        int64 S,2,N: by seed and held-out pair, the rank (1: first) of the caption for the picture, and of the picture
        for the caption, among the held-out pairs.
    """
    found, threads = [], torch.get_num_threads()
    torch.set_num_threads(
        1
    )  # products this small gain little from threads, which wait for one another on a busy machine
    try:
        for start in range(0, len(seeds), _SEEDS_TOGETHER):
            some = seeds[start : start + _SEEDS_TOGETHER]
            towers = _train(frozen, pool, some, recipe, advance)
            found.append(_rank(frozen, held_out, towers))
    finally:
        torch.set_num_threads(threads)
    return np.concatenate(found)


def _train(
    frozen: Frozen, pool: np.ndarray, seeds: list[int], recipe: Recipe, advance: Callable[[int], None]
) -> tuple[Heads, Heads]:
    sizes = frozen.image.shape[1], frozen.text.shape[1]
    towers = Heads(seeds, 0, sizes[0], recipe.width), Heads(seeds, 1, sizes[1], recipe.width)
    log_scale_S = nn.Parameter(torch.full((len(seeds),), -math.log(FIRST_TEMPERATURE)))
    weights = [*towers[0].parameters(), *towers[1].parameters()]
    groups = [{"params": weights, "weight_decay": recipe.weight_decay}, {"params": [log_scale_S], "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=recipe.lr, betas=(0.9, 0.98))
    streams = [_stream(pool, seed, recipe.batch) for seed in seeds]
    for step in range(recipe.steps):
        rows_SB = torch.from_numpy(np.stack([next(stream) for stream in streams]))
        loss = _loss(frozen, rows_SB, towers, log_scale_S)
        for group in optimiser.param_groups:
            group["lr"] = recipe.rate(step)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            log_scale_S.clamp_(0, math.log(MAX_SCALE))
        advance(len(seeds))
    return towers


def _stream(pool: np.ndarray, seed: int, batch: int) -> Iterator[np.ndarray]:
    """Batches from one random order of the rows after another; a batch may reach into the next order."""
    generator = np.random.default_rng(seed)
    waiting = np.empty(0, np.int64)
    while True:
        while len(waiting) < batch:
            waiting = np.concatenate([waiting, generator.permutation(pool)])
        yield waiting[:batch]
        waiting = waiting[batch:]


def _loss(frozen: Frozen, rows_SB: Tensor, towers: tuple[Heads, Heads], log_scale_S: Tensor) -> Tensor:
    """The sum over seeds of the symmetric InfoNCE (van den Oord et al. 2018), so that no seed changes another's."""
    image_SBW, text_SBW = towers[0](frozen.image[rows_SB]), towers[1](frozen.text[rows_SB])
    logits_SBB = log_scale_S.exp()[:, None, None] * (image_SBW @ text_SBW.mT)
    no_negative = frozen.same(rows_SB) & ~torch.eye(rows_SB.shape[1], dtype=torch.bool)
    logits_SBB = logits_SBB.masked_fill(no_negative, -torch.inf)
    own = torch.diagonal(logits_SBB, dim1=1, dim2=2)
    losses = (logits_SBB.logsumexp(2) - own).mean(1) + (logits_SBB.logsumexp(1) - own).mean(1)
    return losses.sum() / 2


@torch.no_grad()
def _rank(frozen: Frozen, held_out: np.ndarray, towers: tuple[Heads, Heads]) -> np.ndarray:
    rows = torch.from_numpy(held_out)
    seeds = len(towers[0].weight_SDW)
    image_SNW = towers[0](frozen.image[rows].expand(seeds, -1, -1))
    text_SNW = towers[1](frozen.text[rows].expand(seeds, -1, -1))
    same = frozen.same(rows).numpy()
    scores = ((image @ text.T).numpy() for image, text in zip(image_SNW, text_SNW, strict=True))
    return np.stack([np.stack([ranks(one, same), ranks(one.T, same)]) for one in scores])
