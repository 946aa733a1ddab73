"""What a stage function returns: a report that the CLI prints and the Dagster UI shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Progress = Callable[[str, int, int], None]
"""Called as progress(stage, done, total), counted in samples; cheap enough to call for every batch."""


def silent(stage: str, done: int, total: int) -> None:
    """A progress callback that shows nothing."""


@dataclass(frozen=True, slots=True)
class StageReport:
    """What one run of a stage did.

    Args:
        counts: counts such as `rows`, `fetched`, `kept`; `rows` is shown as the row count.
        reasons: reason why rows were refused, failed or dropped -> number of rows.
        tables: name -> small table, a list of flat dicts with the same keys.
        slices_done, slices_reused: how many units of work ran, and how many were up to date: slices of a part, shards,
            or the single result of a stage over the corpus.
        version: names the content of the result: runs with the same result have the same version. None: unknown.
    """

    stage: str  # `rows`, `media`, `features`, `selection`, …
    part: str | None = None  # name of the part; None for stages over the whole corpus
    counts: Mapping[str, int] = field(default_factory=dict)
    reasons: Mapping[str, int] = field(default_factory=dict)
    numbers: Mapping[str, float] = field(default_factory=dict)  # measured values, such as `success_share`
    tables: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict)
    images: Mapping[str, bytes] = field(default_factory=dict)  # name -> SVG or JPEG bytes, each under 20 KB
    text: Mapping[str, str] = field(default_factory=dict)  # name -> Markdown; text from outside is escaped in it
    paths: Mapping[str, str] = field(default_factory=dict)  # name -> path of an output
    slices_done: int = 0
    slices_reused: int = 0
    version: str | None = None


def add_counts(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Sum counts key by key; the result's keys are sorted."""
    total: Counter[str] = Counter()
    for part_counts in counts:
        total.update(part_counts)
    return dict(sorted(total.items()))
