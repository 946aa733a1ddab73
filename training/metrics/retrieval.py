"""Recall@K and mean average precision of embeddings, for validation and evaluation.

torchmetrics' retrieval metrics need every score of a query at once, and rank ties as they come. Here a query may have
several right candidates, scores are made in blocks so that a large split fits into memory, and ties count as misses.
Empty input raises ValueError. Values are fractions in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn

_TIE = 1e-9  # cosines this close count as equal, since the same product may differ in its last bits


def retrieval(
    queries_ND: Tensor,
    candidates_MD: Tensor,
    relevant_N: Tensor | None = None,
    groups_M: Tensor | None = None,
    *,
    ks: Sequence[int] = (1, 5, 10),
    chunk: int | None = None,
) -> dict[str, float]:
    """Recall@K and mean average precision of retrieval by cosine, as CLIP and COCO 5K report it.

    A query counts as answered at K if any of its right candidates is among the first K. A wrong candidate with the same
    score as a right one is ranked before it, so that embeddings that are all alike score nothing. At most chunk x chunk
    scores are held at a time, in float64, so that the memory does not grow with N or M.

    Args:
        queries_ND: N embeddings, of any length and float dtype.
        candidates_MD: M embeddings on the same device.
        relevant_N: int64; the group of candidates that answers each query. None: candidate i answers query i.
        groups_M: int64; the group of each candidate. None: candidate j is group j, so `relevant_N` holds indices.
        ks: the cut-offs K.
        chunk: queries and candidates that are compared at a time; None: 1,024, or 8,192 on a GPU.

    Returns: `recall@K` for each K, `map`, and `chance@K`, the recall@K of a random order.
    Raises ValueError: shapes disagree, a query has no right candidate, or an embedding is not finite.
    """
    n, m, device = len(queries_ND), len(candidates_MD), candidates_MD.device
    if not n or not m or queries_ND.shape[1:] != candidates_MD.shape[1:]:
        raise ValueError(f"queries {tuple(queries_ND.shape)} do not fit candidates {tuple(candidates_MD.shape)}")
    relevant_N = torch.arange(n, device=device) if relevant_N is None else relevant_N.to(device)
    groups_M = torch.arange(m, device=device) if groups_M is None else groups_M.to(device)
    if len(relevant_N) != n or len(groups_M) != m:
        raise ValueError(f"{len(relevant_N)} groups for {n} queries, {len(groups_M)} groups for {m} candidates")
    chunk = chunk or (8192 if device.type == "cuda" else 1024)
    answered, chance, precision = dict.fromkeys(ks, 0), dict.fromkeys(ks, 0.0), 0.0
    for block in query_blocks(_right_counts(relevant_N, groups_M), chunk):
        start = block.start
        query_BD, relevant_B = _normalised(queries_ND[block]), relevant_N[block]
        blocks = partial(_score_blocks, query_BD, relevant_B, candidates_MD, groups_M, chunk)
        # A bar is the score of a right candidate. P bars per query, ascending; queries with fewer are padded.
        counts_B, bars_BP = _right_scores(blocks(), start)
        # Count the wrong candidates by how many bars their score reaches, then sum up those at or above each bar.
        wrong_BQ = torch.zeros(len(query_BD), bars_BP.shape[1] + 1, dtype=torch.int64, device=device)
        for scores_BC, is_right_BC in blocks():
            reached_BC = torch.searchsorted(bars_BP, scores_BC, right=True)
            wrong_BQ.scatter_add_(1, reached_BC, (~is_right_BC).long())
        wrong_above_BP = wrong_BQ.flip(1).cumsum(1).flip(1)[:, 1:]
        # The rank of each bar among the right candidates: the highest bar comes last and has rank 1.
        right_rank_BP = (counts_B[:, None] - torch.arange(bars_BP.shape[1], device=device)).clamp(min=0)
        precision_BP = right_rank_BP / (right_rank_BP + wrong_above_BP).clamp(min=1)
        precision += precision_BP.sum(1).div(counts_B).sum().item()
        first_rank_B = 1 + wrong_above_BP.gather(1, counts_B[:, None] - 1)
        for k in ks:
            answered[k] += int((first_rank_B <= k).sum())
            chance[k] += float(chance_at(k, counts_B, m).sum())
    recalls = {f"recall@{k}": answered[k] / n for k in ks} | {"map": precision / n}
    return recalls | {f"chance@{k}": chance[k] / n for k in ks}


def query_blocks(right_N: Tensor, chunk: int) -> Iterator[slice]:
    """Runs of at most `chunk` queries that have at most chunk x chunk right candidates, or are alone.

    Args: right_N: int64, right candidates of each query; all of a long split may share one caption.
    """
    start = 0
    while start < len(right_N):
        size = chunk
        while size > 1 and size * int(right_N[start : start + size].max()) > chunk * chunk:
            size //= 2
        yield slice(start, start + size)
        start += size


def _right_counts(relevant_N: Tensor, groups_M: Tensor) -> Tensor:
    """The number of candidates of each query's group: int64 N."""
    groups, counts = groups_M.unique(return_counts=True)
    place = torch.searchsorted(groups, relevant_N).clamp(max=len(groups) - 1)
    return torch.where(groups[place] == relevant_N, counts[place], 0)


def chance_at(k: int, right_N: Tensor, candidates: int) -> Tensor:
    """The recall@K of a random order: float64 N, 1 - C(M - R, K) / C(M, K).

    Args: right_N: the number R of right candidates of each query, among M candidates.
    """
    drawn = torch.arange(min(k, candidates), device=right_N.device)
    wrong_NK = (candidates - right_N[:, None] - drawn).clamp(min=0)
    return 1 - (wrong_NK.double() / (candidates - drawn)).prod(dim=1)


def retrieval_both_ways(
    images_ND: Tensor,
    texts_MD: Tensor,
    image_groups_N: Tensor | None = None,
    text_groups_M: Tensor | None = None,
    *,
    ks: Sequence[int] = (1, 5, 10),
    chunk: int | None = None,
) -> dict[str, float]:
    """`retrieval` from images to texts (`image_to_text/…`) and from texts to images (`text_to_image/…`).

    Args:
        image_groups_N, text_groups_M: int64; an image and a text of one group answer each other. None: pair i is one.

    Raises ValueError: as `retrieval`; or no groups, and not as many images as texts.
    """
    if (image_groups_N is None) != (text_groups_M is None):
        raise ValueError("groups of one side only: give both, or none to pair by position")
    if image_groups_N is None and len(images_ND) != len(texts_MD):
        raise ValueError(f"{len(images_ND)} images and {len(texts_MD)} texts are not pairs: give their groups")
    to_text = retrieval(images_ND, texts_MD, image_groups_N, text_groups_M, ks=ks, chunk=chunk)
    to_image = retrieval(texts_MD, images_ND, text_groups_M, image_groups_N, ks=ks, chunk=chunk)
    return {f"image_to_text/{name}": value for name, value in to_text.items()} | {
        f"text_to_image/{name}": value for name, value in to_image.items()
    }


def retrieval_by_kind(
    text_ND: Tensor, visual_ND: Tensor, audio_ND: Tensor | None, groups_N: Tensor
) -> dict[str, float]:
    """`retrieval_both_ways` of the samples with pictures, and of those with sound (`audio_to_text/…`).

    Args:
        text_ND, visual_ND, audio_ND: of length 1; zeros if a sample lacks the medium.
        groups_N: int64; the group of each sample's caption.
    """
    scores: dict[str, float] = {}
    for kind, media_ND in (("image", visual_ND), ("audio", audio_ND)):
        if media_ND is None:
            continue
        has_medium = media_ND.norm(dim=1) > 0.5
        if bool(has_medium.any()):
            both = retrieval_both_ways(
                media_ND[has_medium], text_ND[has_medium], groups_N[has_medium], groups_N[has_medium]
            )
            scores |= {name.replace("image", kind): value for name, value in both.items()}
    return scores


def _score_blocks(
    query_BD: Tensor, relevant_B: Tensor, candidates_MD: Tensor, groups_M: Tensor, chunk: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields cosines (float64, B x C) of a block of candidates, and whether each is right (bool, B x C)."""
    for candidates_CD, groups_C in zip(candidates_MD.split(chunk), groups_M.split(chunk), strict=True):
        yield query_BD @ _normalised(candidates_CD).T, relevant_B[:, None] == groups_C


def _normalised(vectors_BD: Tensor) -> Tensor:
    """Vectors of length 1, in float64."""
    if not torch.isfinite(vectors_BD).all():
        raise ValueError("an embedding is NaN or infinite")
    return nn.functional.normalize(vectors_BD.double(), dim=1)


def _right_scores(blocks: Iterator[tuple[Tensor, Tensor]], start: int) -> tuple[Tensor, Tensor]:
    """The number of right candidates of each query, and their scores less the tolerance.

    Args: start: index of the first query, for the error.
    Returns: int64 B, and float64 B,P: ascending, padded with infinity.
    """
    row_list, score_list = [], []
    for scores_BC, is_right_BC in blocks:
        row_list.append(is_right_BC.nonzero()[:, 0])
        score_list.append(scores_BC[is_right_BC])
    rows, scores = torch.cat(row_list), torch.cat(score_list)
    counts_B = torch.bincount(rows, minlength=len(scores_BC))
    if not counts_B.all():
        raise ValueError(f"query {start + int(counts_B.argmin())} has no right candidate")
    by_row = rows.argsort(stable=True)
    rows, scores = rows[by_row], scores[by_row]
    column = torch.arange(len(rows), device=rows.device) - (counts_B.cumsum(0) - counts_B)[rows]
    bars_BP = torch.full((len(counts_B), int(counts_B.max())), math.inf, dtype=scores.dtype, device=scores.device)
    bars_BP[rows, column] = scores - _TIE
    return counts_B, bars_BP.sort(dim=1).values
