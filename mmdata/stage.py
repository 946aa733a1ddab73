"""What a stage function returns: a report that the CLI prints and the Dagster UI shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Progress = Callable[[str, int, int], None]
"""Called as progress(stage, done, total) with samples; cheap enough for every batch."""


def silent(stage: str, done: int, total: int) -> None:
    """A progress that shows nothing."""


@dataclass(frozen=True, slots=True)
class StageReport:
    """What one run of a stage did.

    Args:
        stage: `rows`, `media`, `features`, `selection`, …
        part: the part it ran on; None for stages over the corpus.
        counts: things counted, such as `rows`, `fetched`, `kept`; `rows` is shown as the row count.
        reasons: why rows were refused, failed or dropped -> how many.
        numbers: measured values, such as `success_share`.
        tables: name -> small table, a list of flat dicts with the same keys.
        images: name -> SVG or JPEG bytes, each under 20 KB.
        text: name -> Markdown; anything that came from outside is escaped.
        paths: name -> where the outputs lie.
        slices_done, slices_reused: how many units of work ran, and how many were there already: slices of a part,
            shards, or the one result of a stage over the corpus.
    """

    stage: str
    part: str | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    reasons: Mapping[str, int] = field(default_factory=dict)
    numbers: Mapping[str, float] = field(default_factory=dict)
    tables: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict)
    images: Mapping[str, bytes] = field(default_factory=dict)
    text: Mapping[str, str] = field(default_factory=dict)
    paths: Mapping[str, str] = field(default_factory=dict)
    slices_done: int = 0
    slices_reused: int = 0


def add_counts(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Sum counts key by key; the result's keys are sorted."""
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return dict(sorted(total.items()))
