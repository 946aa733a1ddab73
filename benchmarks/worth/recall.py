"""Ranks of a model on the held-out set, and the recalls that follow from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

KS = (1, 5, 10)
MIN_QUERIES = 5  # concepts with fewer held-out samples are left out of the means
_TIE = 1e-9
WAYS = ("image to text", "text to image")


@torch.no_grad()
def held_out_ranks(checkpoint: Path, workspace: Path, cache: Path) -> tuple[list[str], np.ndarray]:
    """Where each held-out sample's own partner stands among all.

    Args:
        checkpoint: of stage align.
        workspace: of the held-out set; all its samples are looked at.

    Returns:
        uids, and int64 2,N: the rank (1: first) of the caption for the picture, and of the picture for the caption.
    """
    from training.data.batch_readers import PairReader, Share, batches
    from training.data.sample_index import open_training_release
    from training.model.encoders import DualEncoder
    from training.stages.stage_model import load_model
    from training.stages.stage_reader import make_reader

    built, config = load_model(checkpoint)
    assert isinstance(built.model, DualEncoder)
    reader = make_reader(built, open_training_release(str(workspace), cache), config, "train", 64, Share())
    assert isinstance(reader, PairReader)
    uids: list[str] = []
    kept: dict[str, list[Tensor]] = {"visual": [], "text": [], "group": []}
    stream = batches(reader, 0)
    while len(uids) < len(reader.source):
        batch = next(stream)
        found = built.model(batch)
        real = batch.weight > 0
        uids += batch.uids
        for name, values in (("visual", found["visual"]), ("text", found["text"]), ("group", batch.group)):
            kept[name].append(values[real])
    visual, text, group = (torch.cat(kept[name]) for name in ("visual", "text", "group"))
    scores = (visual.double() @ text.double().T).numpy()
    same = (group[:, None] == group[None]).numpy()
    return uids, np.stack([ranks(scores, same), ranks(scores.T, same)])


def ranks(scores_QC: np.ndarray, right_QC: np.ndarray) -> np.ndarray:
    """The rank of each query's best right candidate; a wrong one with an equal score stands before it.

    Args:
        right_QC: bool, at least one a query.
    """
    best_Q1 = np.where(right_QC, scores_QC, -np.inf).max(1, keepdims=True)
    return 1 + ((scores_QC >= best_Q1 - _TIE) & ~right_QC).sum(1)


@dataclass(frozen=True, slots=True)
class Metric:
    """A recall: a mean over strata of the mean over their queries.

    Args:
        way: which row of the ranks; None: the mean of both.
        strata: int64 N, a query's stratum; negative: it does not count.
    """

    name: str
    k: int
    way: int | None
    strata: np.ndarray

    def hits(self, ranks_2N: np.ndarray) -> np.ndarray:
        """float64 N."""
        hit_2N = (ranks_2N <= self.k).astype(np.float64)
        return hit_2N.mean(0) if self.way is None else hit_2N[self.way]


def metrics(concepts: Sequence[str], trained_on: Counter[str]) -> list[Metric]:
    """Recall@K both ways, and the mean over concepts and over tail concepts of the recall of both ways.

    Args:
        concepts: of the held-out samples.
        trained_on: concept -> samples in the pool. The tail is the rarer half of the concepts that count.
    """
    held = Counter(concepts)
    counted = sorted((name for name in held if held[name] >= MIN_QUERIES), key=lambda name: (trained_on[name], name))
    place = {name: at for at, name in enumerate(counted)}
    everything = np.zeros(len(concepts), np.int64)
    own = np.array([place.get(name, -1) for name in concepts], np.int64)
    tail = np.where(own < len(counted) // 2, own, -1)
    recalls = [Metric(f"{WAYS[way]}, recall@{k}", k, way, everything) for way in range(2) for k in KS]
    for name, strata in (("mean over concepts", own), ("mean over tail concepts", tail)):
        if (strata >= 0).any():
            recalls += [Metric(f"{name}, recall@{k}", k, None, strata) for k in KS]
    return recalls
