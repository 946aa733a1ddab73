"""Metrics of texts: BLEU, ROUGE, VQA accuracy, perplexity.

Empty input raises ValueError: a mean over nothing is no score. Values are fractions in [0, 1], perplexity aside.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor


def bleu(predictions: Sequence[str], references: Sequence[str | Sequence[str]], max_n: int = 4) -> dict[str, float]:
    """Corpus BLEU (Papineni et al. 2002), without smoothing: `bleu1` ... `bleu<max_n>`.

    Tokens: see `tokens`. Several references of one prediction are given as a sequence.

    Raises:
        ValueError: no predictions, not as many references, or a prediction without any.
    """
    from torchmetrics.functional.text import bleu_score

    asked = _references(predictions, references)
    ours = [" ".join(tokens(text)) for text in predictions]
    theirs = [[" ".join(tokens(text)) for text in texts] for texts in asked]
    return {f"bleu{n}": float(bleu_score(ours, theirs, n_gram=n)) for n in range(1, max_n + 1)}


def rouge(predictions: Sequence[str], references: Sequence[str | Sequence[str]]) -> dict[str, float]:
    """ROUGE F1 (Lin 2004): `rouge1`, `rouge2`, `rougeL`, a mean over predictions, the best of several references.

    Tokens: those of `tokens` that hold a letter or digit; no stemming.

    Raises:
        ValueError: no predictions, not as many references, or a prediction without any.
    """
    from torchmetrics.functional.text import rouge_score

    asked = [list(texts) for texts in _references(predictions, references)]
    keys = ("rouge1", "rouge2", "rougeL")
    scores = rouge_score(
        list(predictions),
        asked,
        accumulate="best",
        rouge_keys=keys,
        normalizer=str,
        tokenizer=lambda text: [token for token in tokens(text) if any(map(str.isalnum, token))],
    )
    return {key: float(scores[f"{key}_fmeasure"]) for key in keys}


def tokens(text: str) -> list[str]:
    """Lower-case tokens: words, each mark of punctuation, and each character of a script that writes no spaces.

    By character and not by a share of the text: a caption and its reference are then split alike, whatever each mixes.
    """
    return "".join(map(_spaced, unicodedata.normalize("NFC", text).lower())).split()


@cache
def _spaced(char: str) -> str:
    kind = unicodedata.category(char)
    if kind[0] in "PS" or unicodedata.name(char, "").startswith(_NO_SPACES):
        return f" {char} "
    return " " if kind == "Cc" else char


_NO_SPACES = ("CJK", "HIRAGANA", "KATAKANA", "HALFWIDTH KATAKANA", "BOPOMOFO", "IDEOGRAPHIC", "THAI", "LAO", "KHMER")


def _references(predictions: Sequence[str], references: Sequence[str | Sequence[str]]) -> list[Sequence[str]]:
    if isinstance(predictions, str) or not predictions or len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions for {len(references)} references: want as many, and some")
    asked = [[texts] if isinstance(texts, str) else texts for texts in references]
    if (empty := next((i for i, texts in enumerate(asked) if not texts), None)) is not None:
        raise ValueError(f"prediction {empty} has no reference")
    return asked


def vqa_accuracy(
    predictions: Sequence[str], references: Sequence[str | Sequence[str]], *, leave_one_out: bool = False
) -> float:
    """VQA accuracy (Antol et al. 2015): an answer is right to the extent that three people gave it.

    min(matches / 3, 1) with three or more reference answers, else a match with any of them; both sides are
    normalised by `normalise_answer`. An empty prediction is wrong.

    Args:
        leave_one_out: average over all sets of references without one, as the VQA v2 leaderboard does with its ten.

    Raises:
        ValueError: no predictions, not as many references, or a prediction without any.
    """
    total = 0.0
    for prediction, answers in zip(predictions, _references(predictions, references), strict=True):
        ours, n = normalise_answer(prediction), len(answers)
        matches = Counter(map(normalise_answer, answers))[ours] if ours else 0
        if n < 3:
            total += float(matches > 0)
        elif leave_one_out:
            total += (matches * min((matches - 1) / 3, 1) + (n - matches) * min(matches / 3, 1)) / n
        else:
            total += min(matches / 3, 1)
    return total / len(predictions)


def normalise_answer(answer: str) -> str:
    """An answer as the VQA evaluation compares it (visualqa.org/evaluation).

    Lower case; number words up to ten are digits, `none` is 0; articles go; a contraction without its apostrophe gets
    it; a comma between digits and a period without a digit after it go, other punctuation is a space, except
    apostrophe and colon. Beyond the rules: an answer of nothing but articles stays (`A` is a choice).
    """
    text = answer.lower().replace("\u2019", "'")
    text = re.sub(r"(?<=\d),(?=\d)|\.(?!\d)", "", text)
    words = "".join(map(_punctuation_spaced, text)).split()
    kept = [_WORDS.get(word, word) for word in words if word not in ("a", "an", "the")]
    return " ".join(kept or words)


def _punctuation_spaced(char: str) -> str:
    foreign = not char.isascii() and unicodedata.category(char)[0] == "P"
    return " " if foreign or char in ';/[]"{}()=+\\_-><@`,?!' else char


_CONTRACTIONS = """
ain't aren't can't couldn't could've didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll how's i'm isn't
it'd it'll i've ma'am mightn't might've mustn't must've needn't o'clock oughtn't shan't shouldn't should've somebody's
someone's that's there'd there're there's they'd they'll they're they've wasn't weren't we've what'll what're what's
what've when's where'd where's who'd who'll who's who've why'd why's won't wouldn't would've y'all you'd you'll you're
you've
"""

_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")

_WORDS = {word.replace("'", ""): word for word in _CONTRACTIONS.split()}
_WORDS |= {word: str(number) for number, word in enumerate(_NUMBERS)} | {"none": "0"}


class Perplexity:
    """exp of the mean negative log-likelihood of a token, over any number of batches and ranks.

    `totals` (float64, 2) holds the sum of nats and the number of tokens: an all-reduce by sum joins ranks.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.totals = torch.zeros(2, dtype=torch.float64, device=device)

    def update(self, nll_sum: Tensor | float, tokens: Tensor | int) -> None:
        """Add a batch: its summed negative log-likelihood in nats, and its tokens. Does not wait for the device."""
        for at, value in enumerate((nll_sum, tokens)):
            self.totals[at] += value.detach().to(self.totals) if isinstance(value, Tensor) else value

    def compute(self) -> float:
        """The perplexity; inf where it exceeds a float.

        Raises:
            ValueError: no tokens.
        """
        nll_sum, count = self.totals.tolist()
        if not count:
            raise ValueError("perplexity of no tokens")
        try:
            return math.exp(nll_sum / count)
        except OverflowError:
            return math.inf
