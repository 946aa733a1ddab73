"""Ranks of single samples come to the recalls that the evaluation reports."""

from __future__ import annotations

from collections import Counter

import numpy as np
import torch

from training.compare.recall import HEADLINE, KS, metrics, ranks
from training.metrics.retrieval import retrieval_both_ways


def test_ranks_give_the_recall_of_the_metrics_module_ties_and_groups_among_them() -> None:
    generator = torch.Generator().manual_seed(0)
    visual = torch.nn.functional.normalize(torch.randn(60, 8, generator=generator), dim=-1)
    text = torch.nn.functional.normalize(visual + 0.8 * torch.randn(60, 8, generator=generator), dim=-1)
    text[10:20] = text[10]  # ties
    group = torch.arange(60) // 2
    scores = (visual.double() @ text.double().T).numpy()
    same = (group[:, None] == group[None]).numpy()
    expected = retrieval_both_ways(visual, text, group, group)
    for name, found in (("image_to_text", ranks(scores, same)), ("text_to_image", ranks(scores.T, same))):
        assert [np.mean(found <= k) for k in KS] == [expected[f"{name}/recall@{k}"] for k in KS]


def test_a_collapsed_model_ranks_last() -> None:
    assert ranks(np.ones((4, 4)), np.eye(4, dtype=bool)).tolist() == [4, 4, 4, 4]


def test_per_concept_recall_weighs_rare_concepts_alike_and_tells_the_tail() -> None:
    concepts = ["common"] * 90 + ["rare"] * 10 + ["alone"]
    found = {metric.name: metric for metric in metrics(concepts, Counter(common=900, rare=20, alone=1))}
    right = np.array([[1] * 90 + [9] * 10 + [1]] * 2)  # the rare ones are never first
    overall = found["image to text, recall@1"].hits(right)
    assert overall.mean() == 91 / 101
    one = found["mean over concepts, recall@1"]
    assert set(one.strata.tolist()) == {0, 1, -1}, "a concept with one sample has no recall of its own"
    tail = found["mean over tail concepts, recall@1"]
    assert [concepts[at] for at in np.flatnonzero(tail.strata >= 0)] == ["rare"] * 10
    assert tail.hits(right)[90:100].sum() == 0


def test_the_headline_is_one_of_the_metrics_and_means_both_ways() -> None:
    found = {metric.name: metric for metric in metrics(["c"] * 8, Counter(c=8))}
    both = np.array([[1] * 4 + [99] * 4, [1] * 8])
    assert found[HEADLINE].hits(both).mean() == 0.75
