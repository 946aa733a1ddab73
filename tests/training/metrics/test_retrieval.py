"""Retrieval against brute force and worked examples; the score matrix is never whole."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from training.metrics.retrieval import query_blocks, retrieval, retrieval_both_ways


def brute(queries: np.ndarray, candidates: np.ndarray, wanted: list[int], groups: list[int], ks: tuple[int, ...]):
    """Sort every row, wrong candidates first among equals, and read the definitions off it."""
    unit = [v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-12) for v in (queries, candidates)]
    first, precisions = [], []
    for row, group in zip(unit[0] @ unit[1].T, wanted, strict=True):
        right = np.array(groups) == group
        order = sorted(range(len(row)), key=lambda j: (-round(row[j], 7), right[j]))
        ranks = [1 + at for at, j in enumerate(order) if right[j]]
        first.append(ranks[0])
        precisions.append(np.mean([(at + 1) / rank for at, rank in enumerate(ranks)]))
    return {f"recall@{k}": np.mean(np.array(first) <= k) for k in ks} | {"map": np.mean(precisions)}


@st.composite
def many_to_many(draw: st.DrawFn):
    """Small integer vectors, so that ties are common, and groups that every query finds."""
    m, n, kinds = draw(st.integers(1, 12)), draw(st.integers(1, 12)), draw(st.integers(1, 6))
    groups = draw(st.lists(st.integers(0, kinds - 1), min_size=m, max_size=m))
    wanted = draw(st.lists(st.sampled_from(groups), min_size=n, max_size=n))
    vectors = st.lists(st.integers(-2, 2), min_size=3, max_size=3)
    queries = draw(st.lists(vectors, min_size=n, max_size=n))
    candidates = draw(st.lists(vectors, min_size=m, max_size=m))
    return np.array(queries, float), np.array(candidates, float), wanted, groups, draw(st.integers(1, 13))


@settings(max_examples=150, deadline=None)
@given(many_to_many())
def test_retrieval_equals_brute_force_at_any_chunk(case) -> None:
    queries, candidates, wanted, groups, chunk = case
    found = retrieval(
        torch.tensor(queries),
        torch.tensor(candidates),
        torch.tensor(wanted),
        torch.tensor(groups),
        ks=(1, 2, 5),
        chunk=chunk,
    )
    expected = brute(queries, candidates, wanted, groups, (1, 2, 5))
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert found["chance@1"] == pytest.approx(np.mean([groups.count(group) / len(groups) for group in wanted]))
    wrong = [len(groups) - groups.count(group) for group in wanted]
    for k in (1, 2, 5):  # the chance that k draws without return are all wrong, by the binomial coefficients
        drawn = min(k, len(groups))
        missed = [math.comb(count, drawn) / math.comb(len(groups), drawn) for count in wrong]
        assert found[f"chance@{k}"] == pytest.approx(1 - np.mean(missed))


def test_retrieval_by_hand() -> None:
    """Angles 0, 10, 30, 60 degrees: the query at 25 sees 30, 10, 0, 60; right are 10 and 60."""
    candidates = torch.tensor([[math.cos(math.radians(a)), math.sin(math.radians(a))] for a in (0, 10, 30, 60)])
    query = torch.tensor([[math.cos(math.radians(25)), math.sin(math.radians(25))]]) * 7
    found = retrieval(query, candidates, torch.tensor([5]), torch.tensor([1, 5, 2, 5]), ks=(1, 2))
    assert found == pytest.approx(
        {"recall@1": 0, "recall@2": 1, "map": (1 / 2 + 2 / 4) / 2, "chance@1": 0.5, "chance@2": 5 / 6}
    )


@pytest.mark.parametrize("chunk", [1, 7, 64, 1024])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_collapsed_embedding_scores_nothing(chunk: int, dtype: torch.dtype) -> None:
    same = torch.randn(1, 37, generator=torch.Generator().manual_seed(0)).expand(40, 37).to(dtype)
    found = retrieval(same, same, chunk=chunk)
    assert (found["recall@1"], found["recall@10"], found["map"]) == (0, 0, pytest.approx(1 / 40))
    assert retrieval(same * 0, same * 0, chunk=chunk)["recall@10"] == 0


def test_equal_captions_are_the_same_answer() -> None:
    images = torch.eye(3)
    texts = images[[0, 1, 1]]
    assert retrieval(images, texts)["recall@1"] == pytest.approx(1 / 3), "captions 1 and 2 are taken for wrong"
    groups = torch.tensor([0, 1, 1])
    assert retrieval(images, texts, groups, groups)["recall@1"] == pytest.approx(2 / 3)


def test_several_captions_an_image_both_ways() -> None:
    """COCO's shape: 5 captions an image; a caption has one image, an image is answered by any of its five."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(20, 16, generator=generator)
    owner = torch.arange(100) // 5
    texts = images[owner] + 0.8 * torch.randn(100, 16, generator=generator)
    found = retrieval_both_ways(images, texts, torch.arange(20), owner, ks=(1, 5))
    there = brute(images.numpy(), texts.numpy(), list(range(20)), owner.tolist(), (1, 5))
    back = brute(texts.numpy(), images.numpy(), owner.tolist(), list(range(20)), (1, 5))
    assert {k.removeprefix("image_to_text/"): v for k, v in found.items() if k.startswith("i")} == pytest.approx(
        there | {"chance@1": 0.05, "chance@5": 1 - math.comb(95, 5) / math.comb(100, 5)}
    )
    assert {k.removeprefix("text_to_image/"): v for k, v in found.items() if k.startswith("t")} == pytest.approx(
        back | {"chance@1": 0.05, "chance@5": 0.25}
    )
    assert there["recall@1"] > back["recall@1"] > 0.3


class Largest(TorchDispatchMode):
    """The most elements that any tensor made under it has."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for one in out if isinstance(out, tuple | list) else [out]:
            if isinstance(one, torch.Tensor):
                self.elements = max(self.elements, one.untyped_storage().nbytes() // one.element_size())
        return out


def test_the_score_matrix_is_never_whole() -> None:
    vectors = torch.randn(400, 4, generator=torch.Generator().manual_seed(2))
    with Largest() as largest:
        assert retrieval(vectors, vectors, chunk=32)["recall@1"] == 1
    assert largest.elements <= 400 * 4


def test_what_retrieval_refuses() -> None:
    vectors = torch.eye(4)
    with pytest.raises(ValueError, match="query 3 has no right candidate"):
        retrieval(vectors, vectors, torch.tensor([0, 1, 2, 9]), chunk=2)
    with pytest.raises(ValueError, match="NaN or infinite"):
        retrieval(vectors * math.nan, vectors)
    with pytest.raises(ValueError, match="NaN or infinite"):
        retrieval(vectors, vectors / 0)
    for queries in (vectors[:0], torch.zeros(4, 3)):
        with pytest.raises(ValueError, match="do not fit candidates"):
            retrieval(queries, vectors)
    with pytest.raises(ValueError, match="2 groups for 4 queries"):
        retrieval(vectors, vectors, torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="not pairs"):
        retrieval_both_ways(vectors, vectors[:2])
    with pytest.raises(ValueError, match="one side only"):
        retrieval_both_ways(vectors, vectors, torch.arange(4))


def test_queries_with_many_right_answers_are_compared_in_shorter_runs() -> None:
    right = torch.tensor([1] * 20 + [400] * 3 + [8] * 10 + [50])
    blocks = list(query_blocks(right, 16))
    assert [at for block in blocks for at in range(len(right))[block]] == list(range(len(right)))
    for block in blocks:
        size = len(right[block])
        assert size == 1 or (size <= 16 and size * int(right[block].max()) <= 256)
    assert len(blocks) < 15


def test_one_caption_for_half_of_a_split_changes_no_score() -> None:
    torch.manual_seed(0)
    images, texts = torch.randn(90, 8), torch.randn(90, 8)
    groups = torch.arange(90).clamp(min=45)
    one = retrieval_both_ways(images, texts, groups, groups, chunk=4)
    assert one == pytest.approx(retrieval_both_ways(images, texts, groups, groups, chunk=1000))
