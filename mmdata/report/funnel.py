"""The funnel of the report: how many samples each step left, from source rows to the release."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mmdata.optout.state import OPT_OUT
from mmdata.select.decontaminate import CONTAMINATED


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the funnel.

    Args:
        name: a short text for what is left.
        left: the number of samples after this step.
        reasons: (reason, samples lost in this step), most frequent first.
    """

    name: str
    left: int
    reasons: tuple[tuple[str, int], ...] = ()

    @property
    def lost(self) -> int:
        """The number of samples lost in this step."""
        return sum(count for _, count in self.reasons)


STEPS = (
    ("bad_row", "well-formed rows"),
    (OPT_OUT, "not asked to be left out"),
    ("rule", "let in by the filter of their source"),
    ("media", "fetched"),
    ("features", "scored"),
    ("filter", "good enough"),
    (CONTAMINATED, "in no evaluation set"),
    ("duplicate", "unlike the others"),
    ("balance", "kept after balancing"),
)
"""(prefix of the reasons, name of what is left after them), in the order in which the selection decides."""


def funnel(rows: int, uids: int, repeats: int, reasons: Mapping[str, int]) -> list[Step]:
    """The steps from source rows to the samples of a release, its repeats included.

    Args:
        rows, uids: the number of source rows, and of different samples among them.
        repeats: the number of samples in the release, copies included.
        reasons: reason -> number of samples dropped for it, such as `filter:clip_score`.
    """
    merged = (("same URL and caption", rows - uids),) if rows > uids else ()
    steps = [Step("source rows", rows), Step("different rows", uids, merged)]
    left = uids
    prefixes = {prefix for prefix, _ in STEPS}
    for prefix, name in STEPS:
        lost = {reason: count for reason, count in reasons.items() if reason.partition(":")[0] == prefix}
        if prefix == STEPS[-1][0]:
            lost |= {reason: count for reason, count in reasons.items() if reason.partition(":")[0] not in prefixes}
        if prefix in (OPT_OUT, "rule", CONTAMINATED) and not lost:
            continue  # there is no such step where nobody asked for it
        left -= sum(lost.values())
        steps.append(Step(name, left, tuple(sorted(lost.items(), key=lambda item: (-item[1], item[0])))))
    return [*steps, Step("released, with repeats", repeats)]
