"""Evaluation metrics against brute force, worked examples, the published rules, and what breaks a run."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from mmdata.errors import UserError
from training.metrics import (
    Perplexity,
    bleu,
    caption_groups,
    fid_and_inception_score,
    normalise_answer,
    retrieval,
    retrieval_both_ways,
    rouge,
    tokens,
    vqa_accuracy,
)

# --- retrieval


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


def test_retrieval_by_hand() -> None:
    """Angles 0, 10, 30, 60 degrees: the query at 25 sees 30, 10, 0, 60; right are 10 and 60."""
    candidates = torch.tensor([[math.cos(math.radians(a)), math.sin(math.radians(a))] for a in (0, 10, 30, 60)])
    query = torch.tensor([[math.cos(math.radians(25)), math.sin(math.radians(25))]]) * 7
    found = retrieval(query, candidates, torch.tensor([5]), torch.tensor([1, 5, 2, 5]), ks=(1, 2))
    assert found == pytest.approx({"recall@1": 0, "recall@2": 1, "map": (1 / 2 + 2 / 4) / 2, "chance@1": 0.5})


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
    groups = caption_groups(["A  cat", "a dog", "a dog\n"])
    assert groups.tolist() == [0, 1, 1]
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
        there | {"chance@1": 0.05}
    )
    assert {k.removeprefix("text_to_image/"): v for k, v in found.items() if k.startswith("t")} == pytest.approx(
        back | {"chance@1": 0.05}
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
        with pytest.raises(ValueError, match="against candidates"):
            retrieval(queries, vectors)
    with pytest.raises(ValueError, match="2 wanted groups for 4 queries"):
        retrieval(vectors, vectors, torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="no pairs"):
        retrieval_both_ways(vectors, vectors[:2])
    with pytest.raises(ValueError, match="one side only"):
        retrieval_both_ways(vectors, vectors, torch.arange(4))


# --- texts


def test_tokens_of_languages_with_and_without_spaces() -> None:
    assert tokens("A red-brown CAT, sitting.") == ["a", "red", "-", "brown", "cat", ",", "sitting", "."]
    assert tokens("一只iPhone手机。") == ["一", "只", "iphone", "手", "机", "。"]
    assert tokens("ねこがカー") == ["ね", "こ", "が", "カ", "ー"]
    assert tokens("हिन्दी में") == ["हिन्दी", "में"], "combining marks do not split a word"
    assert tokens("고양이가 앉다") == ["고양이가", "앉다"]
    assert tokens("\x00 \n") == []


def test_bleu_by_hand() -> None:
    """`the the the the` has one of its four words clipped in; the brevity penalty is exp(1 - 6/4)."""
    found = bleu(["the cat sat on"], ["the cat sat on the mat"])
    assert found == pytest.approx(dict.fromkeys(("bleu1", "bleu2", "bleu3", "bleu4"), math.exp(1 - 6 / 4)))
    clipped = bleu(["the the the the"], ["the cat is here"], max_n=2)
    assert clipped == pytest.approx({"bleu1": 1 / 4, "bleu2": 0})


def test_bleu_of_chinese_is_by_character() -> None:
    found = bleu(["一只红色的猫"], ["一只红色的狗"])
    expected = math.exp((math.log(5 / 6) + math.log(4 / 5) + math.log(3 / 4) + math.log(2 / 3)) / 4)
    assert found["bleu4"] == pytest.approx(expected)
    assert bleu(["一只红色的猫"], ["一只红色的猫"])["bleu4"] == pytest.approx(1)


def test_the_closest_of_several_references_counts() -> None:
    references = [["there is a cat on the mat", "a cat is on the mat"]]
    assert bleu(["the cat is on the mat"], references)["bleu4"] == pytest.approx(0.7598, abs=1e-4)
    assert rouge(["a cat is on the mat"], references)["rouge2"] == pytest.approx(1)


def test_rouge_by_hand() -> None:
    found = rouge(["My name is John"], ["Is your name John?"])
    assert found == pytest.approx({"rouge1": 0.75, "rouge2": 0, "rougeL": 0.5})
    chinese = rouge(["一只红色的猫。"], ["一只红猫"])
    precision, recall = 4 / 6, 1
    f1 = 2 * precision * recall / (precision + recall)
    assert chinese["rouge1"] == chinese["rougeL"] == pytest.approx(f1)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(*[st.text("ab cd'.,-3\n", max_size=30)] * 2), min_size=1, max_size=4))
def test_rouge_of_english_is_the_usual_one(pairs) -> None:
    from torchmetrics.functional.text import rouge_score

    ours, theirs = [list(side) for side in zip(*pairs, strict=True)]
    usual = rouge_score(ours, [[one] for one in theirs], rouge_keys=("rouge1", "rouge2", "rougeL"))
    assert rouge(ours, theirs) == pytest.approx({k: float(usual[f"{k}_fmeasure"]) for k in rouge(ours, theirs)})


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=12), st.text(max_size=12)), min_size=1, max_size=4))
def test_any_text_gets_a_score(pairs) -> None:
    predictions, references = [list(side) for side in zip(*pairs, strict=True)]
    for value in (bleu(predictions, references) | rouge(predictions, references)).values():
        assert 0 <= value <= 1.000001
    assert 0 <= vqa_accuracy(predictions, references) <= 1


def test_empty_predictions_score_zero() -> None:
    assert set(bleu(["", " "], ["a cat", "a dog"]).values()) == {0}
    assert set(rouge(["", "..."], ["a cat", "一只猫"]).values()) == {0}
    assert vqa_accuracy(["", ""], ["", "yes"]) == 0


@pytest.mark.parametrize("metric", [bleu, rouge, vqa_accuracy])
def test_what_text_metrics_refuse(metric) -> None:
    for predictions, references in (([], []), (["a"], []), (["a", "b"], ["a"]), ("a", ["a"])):
        with pytest.raises(ValueError, match="want as many"):
            metric(predictions, references)
    with pytest.raises(ValueError, match="prediction 1 has no reference"):
        metric(["a", "b"], [["a"], []])


# --- visual question answering


@pytest.mark.parametrize(
    ("given_answer", "normal"),
    [
        ("Yes", "yes"),
        ("The  red\tcar\n", "red car"),
        ("an Apple.", "apple"),
        ("two", "2"),
        ("None", "0"),
        ("twenty", "twenty"),
        ("dont", "don't"),
        ("Don\u2019t", "don't"),
        ("girl's", "girl's"),
        ("2:50 pm", "2:50 pm"),
        ("100,978", "100978"),
        ("3.5", "3.5"),
        ("u.s.a.", "usa"),
        ("black, white", "black white"),
        ("black/white", "black white"),
        ("t-shirt", "t shirt"),
        ("$5", "$5"),
        ("是的。", "是的"),
        ("A", "a"),
        ("?!", ""),
    ],
)
def test_answers_are_normalised_by_the_published_rules(given_answer: str, normal: str) -> None:
    assert normalise_answer(given_answer) == normal
    assert normalise_answer(normal) == normal


@pytest.mark.parametrize(
    ("matches", "simple", "left_out"), [(0, 0, 0), (1, 1 / 3, 0.3), (2, 2 / 3, 0.6), (3, 1, 0.9), (4, 1, 1), (10, 1, 1)]
)
def test_an_answer_of_three_people_is_right(matches: int, simple: float, left_out: float) -> None:
    """The ten answers of a VQA v2 question; leaving each out in turn gives the leaderboard's 0, 30, 60, 90, 100."""
    references = [["The cat."] * matches + ["dog"] * (10 - matches)]
    assert vqa_accuracy(["cat"], references) == pytest.approx(simple)
    assert vqa_accuracy(["cat"], references, leave_one_out=True) == pytest.approx(left_out)


def test_with_one_or_two_references_any_match_is_right() -> None:
    assert vqa_accuracy(["two", "red", "no"], ["2", ["blue", "Red!"], ["yes", "maybe"]]) == pytest.approx(2 / 3)


# --- perplexity


def test_perplexity_does_not_depend_on_the_batches() -> None:
    generator = torch.Generator().manual_seed(3)
    logits, targets = torch.randn(60, 11, generator=generator), torch.randint(11, (60,), generator=generator)
    nll = nn.functional.cross_entropy(logits, targets, reduction="none")
    ranks = [Perplexity(), Perplexity()]
    for at, batch in enumerate(nll.split([1, 9, 20, 30])):
        ranks[at % 2].update(batch.sum(), torch.tensor(len(batch)))
    ranks[0].totals += ranks[1].totals
    assert ranks[0].compute() == pytest.approx(nll.double().mean().exp().item(), rel=1e-6)


def test_a_uniform_guess_over_a_vocabulary_has_its_size() -> None:
    meter = Perplexity()
    for _ in range(1000):
        meter.update(1000 * math.log(50_000), 1000)
    assert meter.compute() == pytest.approx(50_000)
    assert meter.totals.dtype == torch.float64
    assert meter.totals.tolist()[1] == 1_000_000


def test_perplexity_of_a_hopeless_model_is_inf_and_of_nothing_an_error() -> None:
    meter = Perplexity()
    with pytest.raises(ValueError, match="no tokens"):
        meter.compute()
    meter.update(1e6, 2)
    assert meter.compute() == math.inf
    meter.update(torch.tensor(math.inf, requires_grad=True), 1)
    assert meter.compute() == math.inf
    assert not meter.totals.requires_grad


# --- pictures


def gaussian(n: int, d: int, seed: int) -> torch.Tensor:
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_fid_of_equal_sets_is_zero() -> None:
    pictures = gaussian(300, 6, 0) @ gaussian(6, 6, 1)
    found = fid_and_inception_score(pictures, pictures.flip(0), nn.Identity(), batch_size=64)
    assert found["fid"] == pytest.approx(0, abs=1e-6)
    assert (found["fid_samples"], found["fid_features"]) == (300, 6)
    assert set(found) == {"fid", "fid_samples", "fid_features"}


def test_fid_of_shifted_and_scaled_gaussians_is_the_known_one() -> None:
    """|shift|^2 for a shift; for X and aX with centred X, (1 - a)^2 times the trace of the covariance."""
    pictures = gaussian(500, 4, 2) @ gaussian(4, 4, 3)
    shift = torch.tensor([3.0, 0.0, -4.0, 0.5], dtype=torch.float64)
    shifted = fid_and_inception_score(pictures, (pictures + shift).split(130), nn.Identity())
    assert shifted["fid"] == pytest.approx(25.25, rel=1e-6)
    centred = pictures - pictures.mean(0)
    scaled = fid_and_inception_score(centred.split(7), centred * 3, nn.Identity())
    assert scaled["fid"] == pytest.approx(4 * torch.cov(centred.T).trace().item(), rel=1e-6)


class Colours(nn.Module):
    """A batch-normalised extractor: its features change with its mode."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.frozen = nn.BatchNorm2d(3), nn.BatchNorm2d(3).eval()

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.frozen(self.norm(pictures)).mean((2, 3)).half()


def test_the_extractor_is_used_as_it_evaluates_and_left_as_it_was() -> None:
    extractor = Colours()
    before = extractor.norm.running_mean.clone()
    pictures = torch.rand(12, 3, 5, 5, generator=torch.Generator().manual_seed(4))
    found = [fid_and_inception_score(pictures, pictures * 0.5, extractor, batch_size=size)["fid"] for size in (3, 12)]
    assert found[0] == pytest.approx(found[1], rel=1e-9)
    assert torch.equal(extractor.norm.running_mean, before)
    assert (extractor.norm.training, extractor.frozen.training) == (True, False)


def test_inception_score_of_sure_and_varied_classes_is_their_number() -> None:
    logits = torch.eye(5).repeat(40, 1) * 1e4
    found = fid_and_inception_score(logits, logits, nn.Identity(), nn.Identity(), splits=1)
    assert (found["inception_score"], found["inception_score_std"]) == (pytest.approx(5), 0)
    one_class = logits[:1].expand(200, 5)
    assert fid_and_inception_score(logits, one_class, nn.Identity(), nn.Identity())["inception_score"] == pytest.approx(
        1
    )


def test_inception_score_repeats_and_leaves_the_random_state_alone() -> None:
    logits = gaussian(50, 4, 5)
    state = torch.random.get_rng_state()
    found = [fid_and_inception_score(logits, logits, nn.Identity(), nn.Identity(), seed=s) for s in (0, 0, 1)]
    assert torch.equal(state, torch.random.get_rng_state())
    assert found[0] == found[1] != found[2]
    assert found[0]["inception_score_std"] > 0


@pytest.mark.parametrize(("real", "generated"), [(0, 0), (1, 5), (5, 1), (5, 0)])
def test_too_few_pictures_are_refused(real: int, generated: int) -> None:
    pictures = gaussian(5, 3, 6)
    with pytest.raises(UserError, match=f"FID of {real} real and {generated} generated.*more samples than"):
        fid_and_inception_score(pictures[:real], pictures[:generated], nn.Identity())


def test_features_that_are_no_finite_matrix_are_refused() -> None:
    with pytest.raises(UserError, match=r"Identity gave \(4, 3, 2, 2\)"):
        fid_and_inception_score(torch.rand(4, 3, 2, 2), torch.rand(4, 3, 2, 2), nn.Identity())
    with pytest.raises(UserError, match="finite"):
        fid_and_inception_score(torch.full((4, 3), math.nan), torch.rand(4, 3), nn.Identity())
