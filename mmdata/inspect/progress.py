"""How far the parts under way are, how long what is left will take, and which of them are stuck."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from mmdata.config import Corpus
from mmdata.engine.freshness import features_input, rows_input, stage_settings
from mmdata.fingerprint import fingerprint
from mmdata.workspace.attempts import Attempt
from mmdata.workspace.layout import PART_STAGES, Part, PartStage, SliceStamp, Workspace
from mmdata.workspace.lease import Holder, holder_of

SAMPLED_PARTS = 24  # finished parts of a source whose slices tell how long a stage takes
SLICES_OF_A_PART = 2
RETRIED_SHARE = 0.5  # a slice that fetched less of itself than this was only retried: its seconds tell of no whole one

Rates = Mapping[tuple[str, PartStage], float]
"""(source, stage) -> seconds a row, of one worker."""


@dataclass(frozen=True, slots=True)
class Underway:
    """A stage of a part that somebody began and has not ended.

    Args:
        slices_done, slices: how many are up to date, of how many.
        idle_s: seconds since a slice was last finished, or since the try began.
        eta_s: seconds until the stage is done; None: nothing is known yet, or nobody works on it.
        holder: who works on it; None: nobody any more.
        advice: what to do; empty: nothing, it goes well.
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
    begun: Iterable[tuple[Part, PartStage, Attempt]],
    rates: Rates,
    now: datetime | None = None,
) -> list[Underway]:
    """Look at the slices and the lease of each stage that was begun; reads a few stamps a slice.

    Args:
        begun: the attempts that have not ended.
    """
    now = now or datetime.now(UTC)
    return [_one(corpus, workspace, part, stage, attempt, rates, now) for part, stage, attempt in begun]


def _one(
    corpus: Corpus,
    workspace: Workspace,
    part: Part,
    stage: PartStage,
    attempt: Attempt,
    rates: Rates,
    now: datetime,
) -> Underway:
    expected = expected_slices(corpus, workspace, part, stage)
    stamps = {name: workspace.slice_stamp(part.name, stage, name) for name in expected}
    done = {name: one for name, one in stamps.items() if one is not None and one.fingerprint == expected[name]}
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
    """What a person should do about a stage that was begun and has not ended, or nothing."""
    if holder is None:
        return "its process died at work. Remedy: `mmdata build` goes on where it stopped"
    if idle_s > stuck_after_s:
        return (
            f"no slice was finished for {idle_s / 60:.0f} minutes. Remedy: look at the log of process {holder.pid} on "
            f"{holder.host}; if it hangs, stop it, then `mmdata build` goes on where it stopped"
        )
    return ""


def expected_slices(corpus: Corpus, workspace: Workspace, part: Part, stage: PartStage) -> dict[str, str]:
    """The slices of a part's stage, each with the fingerprint that an up-to-date stamp of it has."""
    settings = stage_settings(corpus, part, stage)
    if stage == "rows":
        size = next(source.slice_rows for source in corpus.sources if source.name == part.source)
        names = [f"{number:04d}" for number in range(-(-(part.stop - part.start) // size))]
        return {name: fingerprint(settings, rows_input(part), name) for name in names}
    rows = workspace.part_stamp(part.name, "rows")
    found = {}
    for name in rows.slices if rows else ():
        before = [workspace.slice_stamp(part.name, one, name) for one in PART_STAGES[: PART_STAGES.index(stage)]]
        digests = [one.digest if one else "" for one in before]
        found[name] = fingerprint(settings, digests[0] if stage == "media" else features_input(*digests))
    return found


def seconds_a_row(stamps: Iterable[SliceStamp]) -> float | None:
    """How long a row took in finished slices; None where they do not say."""
    timed = [one for one in stamps if one.rows and one.numbers.get("seconds")]
    whole = [one for one in timed if one.numbers.get("fetched", one.rows) >= RETRIED_SHARE * one.rows] or timed
    rows = sum(one.rows for one in whole)
    return sum(one.numbers["seconds"] for one in whole) / rows if rows else None


def corpus_rates(workspace: Workspace, done: Mapping[tuple[str, PartStage], Sequence[tuple[str, int]]]) -> Rates:
    """How long a row takes in each source and stage, by a few slices of parts that are spread over those finished.

    Args:
        done: (source, stage) -> parts that have finished it, each with its number of slices.
    """
    rates = {}
    for (source, stage), parts in done.items():
        stamps = []
        for part, slices in _spread(parts, SAMPLED_PARTS):
            names = [f"{number:04d}" for number in range(min(slices, SLICES_OF_A_PART))]
            stamps += [one for name in names if (one := workspace.slice_stamp(part, stage, name)) is not None]
        if (rate := seconds_a_row(stamps)) is not None:
            rates[source, stage] = rate
    return rates


def corpus_eta_s(
    rows_left: Mapping[tuple[str, PartStage], float], rates: Rates, workers: int
) -> tuple[float | None, list[str]]:
    """Seconds until every part is up to date, one part at a time; and what has no rate yet.

    Args:
        rows_left: (source, stage) -> rows that the stage has still to go through.
    """
    due = {key: rows for key, rows in rows_left.items() if rows > 0}
    unknown = sorted(f"{stage} of {source}" for source, stage in due.keys() - rates.keys())
    known = [rows * rates[key] for key, rows in due.items() if key in rates]
    return (sum(known) / workers if known or not due else None), unknown


def duration(seconds: float) -> str:
    """Seconds as a person says them: `40 s`, `12 min`, `3 h 5 min`, `2 d 4 h`."""
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
    """How long the rest takes at the pace so far; None where nothing was done yet.

    Args:
        since: what was done when the clock was started.
    """
    return None if done <= since else elapsed_s * (total - done) / (done - since)


def _spread(items: Sequence[tuple[str, int]], most: int) -> list[tuple[str, int]]:
    return [items[number * len(items) // min(most, len(items))] for number in range(min(most, len(items)))]


def _written(workspace: Workspace, part: Part, stage: PartStage, name: str) -> datetime:
    """When a slice was stamped."""
    path = workspace.table(part.name, stage, name).with_suffix(".json")
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)
