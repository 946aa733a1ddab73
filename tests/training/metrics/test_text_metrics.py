"""Metrics of texts against worked examples, the published rules, and what breaks a run."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from training.metrics.text_metrics import bleu, normalise_answer, perplexity, rouge, tokens, vqa_accuracy


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
    clipped = bleu(["the the the the"], ["the cat is here"])
    assert clipped == pytest.approx({"bleu1": 1 / 4, "bleu2": 0, "bleu3": 0, "bleu4": 0})


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
        with pytest.raises(ValueError, match="expected equally many"):
            metric(predictions, references)
    with pytest.raises(ValueError, match="prediction 1 has no reference"):
        metric(["a", "b"], [["a"], []])


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


@pytest.mark.parametrize(("matches", "accuracy"), [(0, 0), (1, 1 / 3), (2, 2 / 3), (3, 1), (10, 1)])
def test_an_answer_of_three_people_is_right(matches: int, accuracy: float) -> None:
    """Ten people answer each question of VQA v2."""
    references = [["The cat."] * matches + ["dog"] * (10 - matches)]
    assert vqa_accuracy(["cat"], references) == pytest.approx(accuracy)


def test_with_one_or_two_references_any_match_is_right() -> None:
    assert vqa_accuracy(["two", "red", "no"], ["2", ["blue", "Red!"], ["yes", "maybe"]]) == pytest.approx(2 / 3)


def test_perplexity_is_the_exponential_of_the_mean_cross_entropy() -> None:
    generator = torch.Generator().manual_seed(3)
    logits, targets = torch.randn(60, 11, generator=generator), torch.randint(11, (60,), generator=generator)
    nll = nn.functional.cross_entropy(logits, targets, reduction="none").double()
    assert perplexity(float(nll.sum()), 60) == pytest.approx(nll.mean().exp().item())


def test_a_uniform_guess_over_a_vocabulary_has_its_size() -> None:
    assert perplexity(1000 * math.log(50_000), 1000) == pytest.approx(50_000)


def test_perplexity_of_a_hopeless_model_is_inf() -> None:
    assert perplexity(1e6, 2) == math.inf
    assert perplexity(math.inf, 1) == math.inf
