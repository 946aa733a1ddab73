"""Progress of the parts under way: slices done, time left, and which parts are stuck."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from mmdata.config import Corpus
from mmdata.engine.stage_fingerprints import features_input, rows_input, stage_settings
from mmdata.fingerprint import fingerprint
from mmdata.workspace.attempts import Attempt
from mmdata.workspace.layout import PART_STAGES, Part, PartStage, SliceStamp, Workspace
from mmdata.workspace.lease import holder_of
from mmdata.workspace.lease_store import Holder

SAMPLED_PARTS, SLICES_PER_SAMPLED_PART = 24, 2
"""How many finished slices of each source and stage the estimate of the time left reads."""

MIN_FETCHED_SHARE = 0.5
"""A slice that fetched a smaller share of its rows was only retried, so its time says nothing about a whole slice."""

Item = TypeVar("Item")
Rates = Mapping[tuple[str, PartStage], float]
"""(source, stage) -> seconds that one worker needs for a row."""


@dataclass(frozen=True, slots=True)
class Underway:
    """A stage of a part that has begun and not ended.

    Args:
        slices_done, slices: slices that are up to date, and slices in all.
        idle_s: seconds since a slice was last finished, or since the attempt began.
        eta_s: seconds until the stage is done; None if there is no estimate yet, or nobody works on it.
        holder: who works on it; None if nobody does any more.
        advice: what a person should do; empty if nothing.
    """

    part: str
    stage: PartStage
    started_at: str
    tries: int
    slices_done: int
    slices: int
    idle_s: float
    eta_s: float | None
    holder: str | None
    advice: str


def underway(
    corpus: Corpus,
    workspace: Workspace,
    attempts: Iterable[tuple[Part, PartStage, Attempt]],
    rates: Rates,
    now: datetime | None = None,
) -> list[Underway]:
    """The progress of each stage that has begun, from its lease and the stamps of its slices.

    Args:
        attempts: those that have not ended.
    """
    now = now or datetime.now(UTC)
    return [_underway(corpus, workspace, part, stage, attempt, rates, now) for part, stage, attempt in attempts]


def _underway(
    corpus: Corpus, workspace: Workspace, part: Part, stage: PartStage, attempt: Attempt, rates: Rates, now: datetime
) -> Underway:
    expected = expected_slices(corpus, workspace, part, stage)
    stamps = {name: workspace.slice_stamp(part.name, stage, name) for name in expected}
    done = {name: stamp for name, stamp in stamps.items() if stamp is not None and stamp.fingerprint == expected[name]}
    holder = holder_of(workspace, f"part-{part.name}")
    times = [_written(workspace, part, stage, name) for name in done]
    idle_s = max(0.0, (now - max([datetime.fromisoformat(attempt.started_at), *times])).total_seconds())
    left = len(expected) - len(done)
    rate = seconds_a_row(done.values()) or rates.get((part.source, stage))
    slice_s = None if rate is None else rate * (part.stop - part.start) / max(len(expected), 1)
    eta_s = None
    if holder is not None and slice_s is not None:
        eta_s = max(0.0, left * slice_s / corpus.engine.workers)
    return Underway(
        part.name,
        stage,
        attempt.started_at,
        attempt.tries,
        len(done),
        len(expected),
        idle_s,
        eta_s,
        None if holder is None else str(holder),
        advice(holder, idle_s, corpus.observe.stuck_after_s),
    )


def advice(holder: Holder | None, idle_s: float, stuck_after_s: float) -> str:
    """What a person should do about a stage that has begun and not ended; empty if nothing."""
    if holder is None:
        return "its process died at work. Remedy: `mmdata build` continues where it stopped"
    if idle_s > stuck_after_s:
        return (
            f"no slice was finished for {idle_s / 60:.0f} minutes. Remedy: look at the log of process {holder.pid} on "
            f"{holder.host}; if it hangs, stop it, then `mmdata build` continues where it stopped"
        )
    return ""


def expected_slices(corpus: Corpus, workspace: Workspace, part: Part, stage: PartStage) -> dict[str, str]:
    """The slices of a part's stage -> the fingerprint of an up-to-date stamp."""
    settings = stage_settings(corpus, part, stage)
    if stage == "rows":
        size = next(source.slice_rows for source in corpus.sources if source.name == part.source)
        names = [f"{number:04d}" for number in range(-(-(part.stop - part.start) // size))]
        return {name: fingerprint(settings, rows_input(part), name) for name in names}
    rows = workspace.part_stamp(part.name, "rows")
    earlier_stages = PART_STAGES[: PART_STAGES.index(stage)]
    fingerprints = {}
    for name in rows.slices if rows else ():
        stamps = [workspace.slice_stamp(part.name, earlier, name) for earlier in earlier_stages]
        digests = [stamp.digest if stamp else "" for stamp in stamps]
        fingerprints[name] = fingerprint(settings, digests[0] if stage == "media" else features_input(*digests))
    return fingerprints


def seconds_a_row(stamps: Iterable[SliceStamp]) -> float | None:
    """Seconds that a row took in finished slices; None if their stamps have no times."""
    timed = [stamp for stamp in stamps if stamp.rows and stamp.numbers.get("seconds")]
    whole = [stamp for stamp in timed if stamp.numbers.get("fetched", stamp.rows) >= MIN_FETCHED_SHARE * stamp.rows]
    counted = whole or timed
    rows = sum(stamp.rows for stamp in counted)
    return sum(stamp.numbers["seconds"] for stamp in counted) / rows if rows else None


def corpus_rates(workspace: Workspace, done: Mapping[tuple[str, PartStage], Sequence[tuple[str, int]]]) -> Rates:
    """Seconds a row takes in each source and stage, from a few slices of parts that are spread over the finished ones.

    Args:
        done: (source, stage) -> parts that have finished it, each with its number of slices.
    """
    rates = {}
    for (source, stage), parts in done.items():
        stamps: list[SliceStamp] = []
        for part, slices in spread(parts, SAMPLED_PARTS):
            names = [f"{number:04d}" for number in range(min(slices, SLICES_PER_SAMPLED_PART))]
            stamps += filter(None, (workspace.slice_stamp(part, stage, name) for name in names))
        if (rate := seconds_a_row(stamps)) is not None:
            rates[source, stage] = rate
    return rates


def corpus_eta_s(
    rows_left: Mapping[tuple[str, PartStage], float], rates: Rates, workers: int
) -> tuple[float | None, list[str]]:
    """Seconds until every part is up to date, one part at a time; and the stages that have no rate yet.

    Args:
        rows_left: (source, stage) -> rows that the stage still has to process.
    """
    due = {key: rows for key, rows in rows_left.items() if rows > 0}
    unknown = sorted(f"{stage} of {source}" for source, stage in due.keys() - rates.keys())
    seconds = [rows * rates[key] for key, rows in due.items() if key in rates]
    return (sum(seconds) / workers if seconds or not due else None), unknown


def duration(seconds: float) -> str:
    """Seconds as text for people: `40 s`, `12 min`, `3 h 5 min`, `2 d 4 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    hours = round(minutes / 60)
    return f"{hours // 24} d {hours % 24} h"


def seconds_left(done: int, total: int, since: int, elapsed_s: float) -> float | None:
    """Seconds that the rest takes at the pace so far; None if nothing was done yet.

    Args:
        since: how much was done already when the time began.
    """
    return None if done <= since else elapsed_s * (total - done) / (done - since)


def spread(items: Sequence[Item], most: int) -> list[Item]:
    """At most so many of the items, evenly spread over all of them."""
    return [items[number * len(items) // min(most, len(items))] for number in range(min(most, len(items)))]


def _written(workspace: Workspace, part: Part, stage: PartStage, name: str) -> datetime:
    """When a slice was stamped."""
    path = workspace.table(part.name, stage, name).with_suffix(".json")
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)
