"""The way from source rows to released samples, read from a selection table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mmdata.optout.state import REASON as OPT_OUT


@dataclass(frozen=True, slots=True)
class Step:
    """One narrowing of the funnel.

    Args:
        name: what is left, in words.
        left: how many samples are.
        reasons: what was lost on the way here, by reason, most frequent first.
    """

    name: str
    left: int
    reasons: tuple[tuple[str, int], ...] = ()

    @property
    def lost(self) -> int:
        """How many were lost on the way here."""
        return sum(count for _, count in self.reasons)


STEPS = (
    ("bad_row", "well-formed rows"),
    (OPT_OUT, "not asked to be left out"),
    ("media", "fetched"),
    ("features", "scored"),
    ("filter", "good enough"),
    ("duplicate", "unlike the others"),
    ("balance", "kept after balancing"),
)
"""Prefix of a reason (before the colon), in the order that selection judges, and what is left after it."""


def funnel(rows: int, uids: int, repeats: int, reasons: Mapping[str, int]) -> list[Step]:
    """The steps from source rows to the samples of a release, its repeats included.

    Args:
        rows, uids: source rows, and different samples among them.
        repeats: samples of the release, copies included.
        reasons: reason -> samples dropped for it, such as `filter:clip_score`.
    """
    steps = [Step("source rows", rows), Step("different rows", uids, _merged(rows - uids))]
    left = uids
    known = {prefix for prefix, _ in STEPS}
    for prefix, name in STEPS:
        lost = {reason: count for reason, count in reasons.items() if reason.partition(":")[0] == prefix}
        if prefix == STEPS[-1][0]:
            lost |= {reason: count for reason, count in reasons.items() if reason.partition(":")[0] not in known}
        if prefix == OPT_OUT and not lost:
            continue  # a corpus that nobody asked to be left out of has no such step
        left -= sum(lost.values())
        steps.append(Step(name, left, tuple(sorted(lost.items(), key=lambda item: (-item[1], item[0])))))
    return [*steps, Step("released, with repeats", repeats)]


def _merged(count: int) -> tuple[tuple[str, int], ...]:
    return (("same URL and caption", count),) if count else ()
