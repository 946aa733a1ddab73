"""Scores of generated texts, for evaluation: BLEU, ROUGE, VQA accuracy and perplexity.

No predictions, not as many references, or a prediction without any raise ValueError. Values are fractions in [0, 1],
except perplexity.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from functools import cache


def bleu(predictions: Sequence[str], references: Sequence[str | Sequence[str]]) -> dict[str, float]:
    """Corpus BLEU (Papineni et al. 2002) without smoothing, by torchmetrics: `bleu1` to `bleu4`.

    Texts are split by `tokens`, since torchmetrics' own tokenizers keep unspaced scripts in one piece.

    Args: references: of each prediction: one text, or a sequence of texts.
    """
    from torchmetrics.functional.text import bleu_score

    reference_lists = _reference_lists(predictions, references)
    split_predictions = [" ".join(tokens(text)) for text in predictions]
    split_references = [[" ".join(tokens(text)) for text in texts] for texts in reference_lists]
    return {f"bleu{n}": float(bleu_score(split_predictions, split_references, n_gram=n)) for n in range(1, 5)}


def rouge(predictions: Sequence[str], references: Sequence[str | Sequence[str]]) -> dict[str, float]:
    """ROUGE F1 (Lin 2004), by torchmetrics: `rouge1`, `rouge2` and `rougeL`, each a mean over predictions.

    Of several references the best one counts. Tokens are those of `tokens` with a letter or digit, without stemming.
    """
    from torchmetrics.functional.text import rouge_score

    reference_lists = [list(texts) for texts in _reference_lists(predictions, references)]
    keys = ("rouge1", "rouge2", "rougeL")
    scores = rouge_score(
        list(predictions),
        reference_lists,
        accumulate="best",
        rouge_keys=keys,
        normalizer=str,
        tokenizer=lambda text: [token for token in tokens(text) if any(map(str.isalnum, token))],
    )
    return {key: float(scores[f"{key}_fmeasure"]) for key in keys}


def tokens(text: str) -> list[str]:
    """Lower-case tokens: words, single punctuation marks, and single characters of scripts without spaces.

    The script is judged for each character, not for the text: a caption and its reference are then split in the same
    way, even if only one of them mixes scripts.
    """
    return "".join(map(_spaced, unicodedata.normalize("NFC", text).lower())).split()


@cache
def _spaced(char: str) -> str:
    kind = unicodedata.category(char)
    if kind[0] in "PS" or unicodedata.name(char, "").startswith(_UNSPACED):
        return f" {char} "
    return " " if kind == "Cc" else char


_UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "HALFWIDTH KATAKANA", "BOPOMOFO", "IDEOGRAPHIC", "THAI", "LAO", "KHMER")


def _reference_lists(predictions: Sequence[str], references: Sequence[str | Sequence[str]]) -> list[Sequence[str]]:
    if isinstance(predictions, str) or not predictions or len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions for {len(references)} references: expected equally many")
    reference_lists = [[texts] if isinstance(texts, str) else texts for texts in references]
    for index, texts in enumerate(reference_lists):
        if not texts:
            raise ValueError(f"prediction {index} has no reference")
    return reference_lists


def vqa_accuracy(predictions: Sequence[str], references: Sequence[str | Sequence[str]]) -> float:
    """VQA accuracy (Antol et al. 2015): an answer is fully right if at least three people gave it.

    torchmetrics has no VQA accuracy.
    With three or more reference answers a prediction scores min(matches / 3, 1); with fewer, any match scores 1. Both
    sides are normalised by `normalise_answer`. An empty prediction is wrong.
    """
    total = 0.0
    for prediction, answers in zip(predictions, _reference_lists(predictions, references), strict=True):
        normalised = normalise_answer(prediction)
        matches = list(map(normalise_answer, answers)).count(normalised) if normalised else 0
        total += min(matches / 3, 1) if len(answers) >= 3 else float(matches > 0)
    return total / len(predictions)


def normalise_answer(answer: str) -> str:
    """Normalise an answer as the VQA evaluation does (visualqa.org/evaluation).

    Letters become lower case, and number words up to ten digits; `none` becomes 0. Articles are removed. A contraction
    without its apostrophe gets it. A comma between digits and a period before no digit are removed; other punctuation
    becomes a space, except apostrophes and colons. One addition to the rules: an answer of articles only is kept, since
    `A` may be a choice.
    """
    text = answer.lower().replace("\u2019", "'")
    text = re.sub(r"(?<=\d),(?=\d)|\.(?!\d)", "", text)
    words = "".join(map(_punctuation_spaced, text)).split()
    kept = [_WORDS.get(word, word) for word in words if word not in ("a", "an", "the")]
    return " ".join(kept or words)


def _punctuation_spaced(char: str) -> str:
    is_other_script = not char.isascii() and unicodedata.category(char)[0] == "P"
    return " " if is_other_script or char in ';/[]"{}()=+\\_-><@`,?!' else char


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


def perplexity(nll_sum: float, tokens: float) -> float:
    """exp of the mean negative log-likelihood (in nats) of a token; infinity if it exceeds a float.

    torchmetrics' Perplexity needs all logits at once; the chunked loss never holds them and gives sums, as here.
    """
    try:
        return math.exp(nll_sum / tokens)
    except OverflowError:
        return math.inf
