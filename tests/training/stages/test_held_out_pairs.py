"""Embeddings of held-out pairs are collected over batches: without padding, with the uids of what was seen."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from tests.support.tiny_run import alone
from training.data.batch_types import PairBatch
from training.metrics.retrieval import retrieval_by_kind
from training.stages.held_out_pairs import HeldOutPairs


def test_batches_score_as_one_and_padding_does_not_count() -> None:
    torch.manual_seed(0)
    text, visual = (F.normalize(torch.randn(7, 4), dim=1) for _ in range(2))
    visual[2] = 0  # a sample without a picture
    groups = torch.tensor([3, 1, 4, 1, 5, 9, 2])
    pairs = HeldOutPairs(alone())
    for places, padding in ((range(4), 0), (range(4, 7), 1)):
        at = torch.tensor(places)
        shown = torch.tensor([place - places[0] for place in places if place != 2 for _ in range(2)])  # two frames each
        none = torch.zeros(0, dtype=torch.int64)
        batch = PairBatch(
            text=torch.zeros(len(at) + padding, 1),
            weight=torch.tensor([1.0] * len(at) + [0.0] * padding),
            group=F.pad(groups[at], (0, padding)),
            is_clip=torch.ones(len(at), dtype=torch.bool),
            picture=None,
            picture_of=shown,
            sound=None,
            sound_of=none,
            uids=[str(place) for place in places],
            read=len(at),
            bad=0,
        )
        pairs.add(
            {name: F.pad(rows[at], (0, 0, 0, padding)) for name, rows in (("text", text), ("visual", visual))}, batch
        )
    assert pairs.scores() == retrieval_by_kind(text, visual, None, groups)
    uids, seen = pairs.pictures()
    assert uids == ["0", "1", "3", "4", "5", "6"]
    assert torch.equal(seen, visual[[0, 1, 3, 4, 5, 6]])
