"""Recall@k and mAP of embeddings, of many right candidates a query, in blocks.

Empty input raises ValueError: a mean over nothing is no score. Values are fractions in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

_TIE = 1e-9  # cosines this close are equal: the kernels of one product differ in the last bits


def retrieval(
    queries_ND: Tensor,
    candidates_MD: Tensor,
    relevant_N: Tensor | None = None,
    groups_M: Tensor | None = None,
    *,
    ks: Sequence[int] = (1, 5, 10),
    chunk: int = 1024,
) -> dict[str, float]:
    """Recall@K and mean average precision of retrieval by cosine, as CLIP and COCO 5K report it.

    A query is answered at K if any of its right candidates is among the first K. Ties count against it: a wrong
    candidate with an equal score is ranked ahead, so that a collapsed embedding scores what it is worth. At most
    chunk x chunk scores are held, in float64.

    Args:
        queries_ND: N embeddings, of any length and float dtype.
        candidates_MD: M embeddings on the same device.
        relevant_N: int64, the group that answers each query; None: query i is answered by candidate i.
        groups_M: int64, each candidate's group; None: candidate j is its own group j, so `relevant_N` holds indices.
        ks: the cut-offs K.
        chunk: queries and candidates at once.

    Returns:
        `recall@K` for each K, `map`, and `chance@1`, the recall@1 of a random order.

    Raises:
        ValueError: shapes disagree, a query has no right candidate, or an embedding is not finite.
    """
    n, m, device = len(queries_ND), len(candidates_MD), candidates_MD.device
    if not n or not m or queries_ND.shape[1:] != candidates_MD.shape[1:]:
        raise ValueError(f"queries {tuple(queries_ND.shape)} against candidates {tuple(candidates_MD.shape)}")
    relevant_N = torch.arange(n, device=device) if relevant_N is None else relevant_N.to(device)
    groups_M = torch.arange(m, device=device) if groups_M is None else groups_M.to(device)
    if len(relevant_N) != n or len(groups_M) != m:
        raise ValueError(f"{len(relevant_N)} wanted groups for {n} queries, {len(groups_M)} groups for {m} candidates")
    answered, precision, chance = dict.fromkeys(ks, 0), 0.0, 0.0
    for start in range(0, n, chunk):
        query_BD, wanted_B = _unit(queries_ND[start : start + chunk]), relevant_N[start : start + chunk]
        blocks = _Blocks(query_BD, wanted_B, candidates_MD, groups_M, chunk)
        counts_B, bars_BP = _bars(blocks, start)
        hits_B1 = torch.zeros(len(query_BD), bars_BP.shape[1] + 1, dtype=torch.int64, device=device)
        for scores_BC, right_BC in blocks:
            cleared_BC = torch.searchsorted(bars_BP, scores_BC, right=True)
            hits_B1.scatter_add_(1, cleared_BC, (~right_BC).long())
        ahead_BP = hits_B1.flip(1).cumsum(1).flip(1)[:, 1:]  # wrong candidates at or above each bar
        place_BP = (counts_B[:, None] - torch.arange(bars_BP.shape[1], device=device)).clamp(min=0)  # among the right
        precision += (place_BP / (place_BP + ahead_BP).clamp(min=1)).sum(1).div(counts_B).sum().item()
        first_B = 1 + ahead_BP.gather(1, counts_B[:, None] - 1)
        chance += counts_B.sum().item() / m
        for k in ks:
            answered[k] += int((first_B <= k).sum())
    return {f"recall@{k}": answered[k] / n for k in ks} | {"map": precision / n, "chance@1": chance / n}


def retrieval_both_ways(
    images_ND: Tensor,
    texts_MD: Tensor,
    image_groups_N: Tensor | None = None,
    text_groups_M: Tensor | None = None,
    *,
    ks: Sequence[int] = (1, 5, 10),
    chunk: int = 1024,
) -> dict[str, float]:
    """`retrieval` from images (or clips, or sounds) to texts and back: `image_to_text/...` and `text_to_image/...`.

    Args:
        image_groups_N: int64; an image and a text of one group answer each other. None for both: pair i is group i.
        text_groups_M: int64, likewise. `caption_groups` makes both where captions repeat.

    Raises:
        ValueError: as `retrieval`; or no groups, and not as many images as texts.
    """
    if (image_groups_N is None) != (text_groups_M is None):
        raise ValueError("groups of one side only: give both, or neither for pairs by position")
    if image_groups_N is None and len(images_ND) != len(texts_MD):
        raise ValueError(f"{len(images_ND)} images and {len(texts_MD)} texts are no pairs: give their groups")
    there = retrieval(images_ND, texts_MD, image_groups_N, text_groups_M, ks=ks, chunk=chunk)
    back = retrieval(texts_MD, images_ND, text_groups_M, image_groups_N, ks=ks, chunk=chunk)
    return {f"image_to_text/{name}": value for name, value in there.items()} | {
        f"text_to_image/{name}": value for name, value in back.items()
    }


def retrieval_by_kind(
    text_ND: Tensor, visual_ND: Tensor, audio_ND: Tensor | None, groups_N: Tensor
) -> dict[str, float]:
    """`retrieval_both_ways` of the samples that have a picture, and of those that have sound (`audio_to_text/...`).

    Args:
        text_ND, visual_ND, audio_ND: of unit length, zero where a sample lacks the medium.
        groups_N: int64.
    """
    found: dict[str, float] = {}
    for kind, media_ND in (("image", visual_ND), ("audio", audio_ND)):
        if media_ND is None:
            continue
        has = media_ND.norm(dim=1) > 0.5
        if bool(has.any()):
            both = retrieval_both_ways(media_ND[has], text_ND[has], groups_N[has], groups_N[has])
            found |= {name.replace("image", kind): value for name, value in both.items()}
    return found


def caption_groups(captions: Sequence[str]) -> Tensor:
    """Group numbers (int64, N) under which captions that differ in case and white space only are one answer."""
    numbers: dict[str, int] = {}
    return torch.tensor([numbers.setdefault(" ".join(text.lower().split()), len(numbers)) for text in captions])


class _Blocks:
    """Scores of some queries against all candidates, a block at a time; to be iterated as often as needed."""

    def __init__(self, query_BD: Tensor, wanted_B: Tensor, candidates_MD: Tensor, groups_M: Tensor, chunk: int) -> None:
        self._query_BD, self._wanted_B = query_BD, wanted_B
        self._candidates, self._groups = candidates_MD.split(chunk), groups_M.split(chunk)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Cosines (float64, B x C) and which of them are right (bool, B x C)."""
        for candidates_CD, groups_C in zip(self._candidates, self._groups, strict=True):
            yield self._query_BD @ _unit(candidates_CD).T, self._wanted_B[:, None] == groups_C


def _unit(vectors_BD: Tensor) -> Tensor:
    if not torch.isfinite(vectors_BD).all():
        raise ValueError("an embedding is NaN or infinite")
    return nn.functional.normalize(vectors_BD.double(), dim=1)


def _bars(blocks: _Blocks, start: int) -> tuple[Tensor, Tensor]:
    """How many right candidates each query has, and their scores less the tolerance, ascending, padded with inf."""
    rows_list, values_list = [], []
    for scores_BC, right_BC in blocks:
        rows_list.append(right_BC.nonzero()[:, 0])
        values_list.append(scores_BC[right_BC])
    rows, values = torch.cat(rows_list), torch.cat(values_list)
    counts_B = torch.bincount(rows, minlength=len(scores_BC))
    if not counts_B.all():
        raise ValueError(f"query {start + int(counts_B.argmin())} has no right candidate")
    by_row = rows.argsort(stable=True)
    rows, values = rows[by_row], values[by_row]
    column = torch.arange(len(rows), device=rows.device) - (counts_B.cumsum(0) - counts_B)[rows]
    bars_BP = torch.full((len(counts_B), int(counts_B.max())), math.inf, dtype=values.dtype, device=values.device)
    bars_BP[rows, column] = values - _TIE
    return counts_B, bars_BP.sort(dim=1).values
