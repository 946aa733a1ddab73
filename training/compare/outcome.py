"""What a comparison found: the metrics of each arm, and the difference of each two of them with its interval."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from training.compare.recall import HEADLINE, Metric
from training.compare.verdict import CONFIDENCE, Difference, Word, difference, seed_means, tally

if TYPE_CHECKING:
    from training.compare.experiment import Experiment

FORMAT = 1


@dataclass(frozen=True, slots=True)
class ArmFacts:
    """What an arm trains on.

    Args:
        distinct: its pairs that have both vectors.
        trained_on: those that are neither held out nor too like a held-out one, copies counted.
        trained_on_distinct: the same without copies.
        true_share: of the distinct ones, the share whose caption is true; None: not known.
    """

    name: str
    spec: str
    distinct: int
    trained_on: int
    trained_on_distinct: int
    true_share: float | None


@dataclass(frozen=True, slots=True)
class Measured:
    """A metric of all arms.

    Args:
        seeds: arm -> the metric of each seed.
        differences: (arm, other arm) -> the second minus the first, for each two arms in their order.
    """

    name: str
    queries: int
    strata: int
    seeds: Mapping[str, Sequence[float]]
    differences: Mapping[tuple[str, str], Difference]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a comparison found.

    Args:
        held_out: number of held-out pairs; `left_out`: further pairs that are too like one of them.
        held_out_from: the release or table that they are from; None: drawn from the corpus.
        knows_truth: whether false captions were kept out of the held-out pairs.
    """

    arms: Sequence[ArmFacts]
    measured: Sequence[Measured]
    steps: int
    batch: int
    seeds: int
    held_out: int
    left_out: int
    held_out_from: str | None
    knows_truth: bool
    scorer: str
    seconds: float

    def headline(self) -> Measured:
        """The metric that a verdict of one word follows from; it was chosen before anything was measured."""
        return next(metric for metric in self.measured if metric.name == HEADLINE)

    def pairs(self) -> list[tuple[str, str]]:
        """Each two arms, in their order."""
        return list(combinations([arm.name for arm in self.arms], 2))

    def words(self, pair: tuple[str, str]) -> list[Word]:
        """The word of each metric for the second arm against the first."""
        return [metric.differences[pair].word for metric in self.measured]

    def verdict(self, pair: tuple[str, str]) -> str:
        """The verdict on two arms in one line."""
        first, second = pair
        gain = self.headline().differences[pair]
        change = f"{gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]"
        return f"{second} against {first}: {gain.word} in {HEADLINE} ({change}); {tally(self.words(pair))}"

    def notes(self) -> list[str]:
        """What a reader must know to trust the figures, a sentence each."""
        notes = [f"Chance of recall@10 is {min(1.0, 10 / self.held_out):.1%}; intervals are of {CONFIDENCE:.0%}."]
        if not self.knows_truth:
            notes.append(
                "It is not known which held-out captions are true: false ones lower the figures of all arms alike."
            )
        if self.seeds < 2:
            notes.append("One seed says nothing of its spread, so no difference can be seen. Remedy: --seeds 10.")
        words = sum(len(self.words(pair)) for pair in self.pairs())
        notes.append(
            f"{words} intervals were looked at. The verdict is that of {HEADLINE}; of the others about one in twenty "
            "leaves zero out by chance."
        )
        return notes

    def to_json(self) -> dict[str, Any]:
        """Everything, as plain values. An interval that is not finite is null."""
        return {
            "format": FORMAT,
            "scorer": self.scorer,
            "steps": self.steps,
            "batch": self.batch,
            "seeds": self.seeds,
            "confidence": CONFIDENCE,
            "held_out": {
                "pairs": self.held_out,
                "from": self.held_out_from,
                "too_like_left_out": self.left_out,
                "captions_known_to_be_true": self.knows_truth,
            },
            "arms": [asdict(arm) for arm in self.arms],
            "metrics": [
                {
                    "name": metric.name,
                    "queries": metric.queries,
                    "strata": metric.strata,
                    "arms": {
                        name: {"mean": float(np.mean(values)), "std": _spread(values), "seeds": list(values)}
                        for name, values in metric.seeds.items()
                    },
                    "differences": [_difference_json(*pair, gain) for pair, gain in metric.differences.items()],
                }
                for metric in self.measured
            ],
            "headline": HEADLINE,
            "verdicts": [
                {
                    "arm": second,
                    "against": first,
                    "word": self.headline().differences[first, second].word,
                    "words": {
                        word: self.words((first, second)).count(word)
                        for word in sorted(set(self.words((first, second))))
                    },
                }
                for first, second in self.pairs()
            ],
            "notes": self.notes(),
            "seconds": round(self.seconds, 1),
        }


def outcome(
    experiment: Experiment,
    arms: Sequence[ArmFacts],
    recalls: Sequence[Metric],
    ranks: Mapping[str, np.ndarray],
    **facts: Any,
) -> Outcome:
    """Measure the ranks of each arm.

    Args:
        ranks: arm -> int S,2,N, see `train_and_rank`.
        facts: the other fields of the outcome.
    """
    measured = []
    for metric in recalls:
        hits = {name: np.stack([metric.hits(of_seed) for of_seed in by_seed]) for name, by_seed in ranks.items()}
        counted = metric.strata >= 0
        measured.append(
            Measured(
                metric.name,
                int(counted.sum()),
                len(np.unique(metric.strata[counted])),
                {name: seed_means(hit, metric.strata).tolist() for name, hit in hits.items()},
                {
                    (first, second): difference(hits[second], hits[first], metric.strata)
                    for first, second in combinations(ranks, 2)
                },
            )
        )
    recipe = experiment.recipe
    return Outcome(arms, measured, recipe.steps, recipe.batch, experiment.seeds, **facts)


def _difference_json(first: str, second: str, gain: Difference) -> dict[str, Any]:
    bounds = {name: value if math.isfinite(value) else None for name, value in (("low", gain.low), ("high", gain.high))}
    return {"arm": second, "against": first, "mean": gain.mean, **bounds, "word": gain.word}


def _spread(values: Sequence[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None
