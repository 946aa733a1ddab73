"""Evaluation metrics: pure functions over embeddings, texts, answers and pictures, and one accumulator.

Empty input raises ValueError: a mean over nothing is no score. Values are fractions in [0, 1] unless a docstring says
otherwise.
"""

from __future__ import annotations

import math
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor, nn

from mmdata.errors import UserError

_TIE = 1e-9  # cosines this close are equal: the kernels of one product differ in the last bits
_LOG_FLOOR = -700.0  # smallest log-probability whose float64 exponential is not 0


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


@torch.no_grad()
def fid_and_inception_score(
    real: Tensor | Iterable[Tensor],
    generated: Tensor | Iterable[Tensor],
    extractor: nn.Module,
    classifier: nn.Module | None = None,
    *,
    splits: int = 10,
    batch_size: int = 64,
    seed: int = 0,
) -> dict[str, float]:
    """Frechet inception distance (Heusel et al. 2017) and Inception score (Salimans et al. 2016), by torchmetrics.

    Both carry the name of a network that this package does not ship: values compare only under one extractor. With no
    more samples than features the covariances have no full rank and the distance is biased upwards: read `fid` beside
    `fid_samples` and `fid_features`. Local to the calling rank.

    Args:
        real: pictures as the modules take them: one tensor (N x C x H x W), or batches.
        generated: likewise.
        extractor: pictures to features (B x F).
        classifier: pictures to class logits (B x K); None: no Inception score, for which features are no substitute.
        splits: groups of generated pictures over which the Inception score's mean and deviation are taken.
        batch_size: pictures at once, of a tensor.
        seed: of the division into groups; the global random state stays as it is.

    Returns:
        `fid`, `fid_samples` (of the smaller set), `fid_features`; with a classifier `inception_score` (1 to K) and
        `inception_score_std`.

    Raises:
        UserError: fewer than two pictures on a side, or features that are no finite matrix.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.inception import InceptionScore

    fid, logits, seen, width = None, [], {True: 0, False: 0}, 0
    with _evaluating(extractor, classifier):
        for is_real, pictures in ((True, real), (False, generated)):
            for batch in pictures.split(batch_size) if isinstance(pictures, Tensor) else pictures:
                features_BF = _matrix(extractor, batch)
                if fid is None:
                    width = features_BF.shape[1]
                    same = nn.Identity()
                    same.num_features = width  # type: ignore[assignment]
                    fid = FrechetInceptionDistance(same, sync_on_compute=False).to(features_BF.device)
                fid.update(features_BF, real=is_real)
                seen[is_real] += len(features_BF)
                if classifier is not None and not is_real:
                    logits.append(_matrix(classifier, batch).log_softmax(1).clamp(min=_LOG_FLOOR))
    if fid is None or min(seen.values()) < 2:
        raise UserError(
            f"FID of {seen[True]} real and {seen[False]} generated pictures: a covariance needs at least 2 on each "
            f"side, and means something only with more samples than the extractor has features. Remedy: more samples."
        )
    scores = {"fid": max(fid.compute().item(), 0.0), "fid_samples": float(min(seen.values())), "fid_features": width}
    if logits:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore", UserWarning)  # it keeps all logits; and one group has no deviation
            torch.random.default_generator.manual_seed(seed)
            inception = InceptionScore(nn.Identity(), splits=min(splits, seen[False]), sync_on_compute=False)
            inception.update(torch.cat(logits))
            mean, deviation = inception.compute()
        scores |= {"inception_score": mean.item(), "inception_score_std": deviation.nan_to_num(0.0).item()}
    return scores


def _matrix(module: nn.Module, batch: Tensor) -> Tensor:
    parameter = next(module.parameters(), None)
    out = module(batch if parameter is None else batch.to(parameter.device)).double()
    if out.ndim != 2 or not torch.isfinite(out).all():
        raise UserError(f"{type(module).__name__} gave {tuple(out.shape)}: want finite numbers, batch x features")
    return out


@contextmanager
def _evaluating(*modules: nn.Module | None) -> Iterator[None]:
    """Evaluation mode, and afterwards each submodule's own mode again."""
    modes = [(part, part.training) for module in modules if module is not None for part in module.modules()]
    for part, _ in modes:
        part.training = False
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode
