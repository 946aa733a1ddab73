"""The work that the next build has with a stale part: stages, slices and rows, and why."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime

import polars as pl

from mmdata.config import Corpus
from mmdata.config.setting_changes import Change, changed_settings
from mmdata.config.source_filter import SourceFilter
from mmdata.engine.deciding_settings import deciding_settings, rules_changed
from mmdata.engine.freshness import (
    FILTER_CHANGED,
    PartPlan,
    is_due,
    lacking_vectors,
    lacks_text_vectors,
    media_reuse,
    what_changed,
)
from mmdata.engine.stage_fingerprints import features_input, named_settings, rows_input, stage_settings
from mmdata.fingerprint import fingerprint
from mmdata.sources.source_rules import rule_reasons
from mmdata.sources.stage import slice_spans
from mmdata.storage.tables import read_table
from mmdata.workspace.attempts import last_attempts
from mmdata.workspace.layout import Part, PartStage, PartStamp, Workspace


@dataclass(frozen=True, slots=True)
class StageWork:
    """What one stage of a part has to do.

    Args:
        slices, of: number of slices that run, and of all slices.
        rows: rows of the slices that run; for a retry, the rows that are due.
        urls_due: failed URLs whose retry is due.
        is_exact: False if the numbers are upper bounds, because they depend on the result of an earlier stage.
        why: one line for people.
        settings: the changed settings, if these are the reason.
    """

    stage: PartStage
    slices: int
    of: int
    rows: int
    why: str
    urls_due: int = 0
    is_exact: bool = True
    settings: tuple[Change, ...] = ()


@dataclass(frozen=True, slots=True)
class PartWork:
    """A part that a build would work on.

    Args:
        is_new: its rows have not been in a release yet.
        note: the error of the last try, if it failed.
    """

    part: Part
    stages: tuple[StageWork, ...]
    is_new: bool = False
    note: str = ""

    @property
    def only_retries(self) -> bool:
        """Whether there are only retries to do, which may all fail again and then change nothing."""
        return self.stages[0].why.startswith("retries due")


@dataclass
class _Slices:
    """The slices that run, with their rows; the other fields are those of `StageWork`."""

    rows: dict[str, int] = field(default_factory=dict)
    of: int = 0
    urls_due: int = 0
    is_exact: bool = True
    held_back: Counter[str] = field(default_factory=Counter)  # rule of the source's filter -> rows


def part_work(
    corpus: Corpus, workspace: Workspace, plan: PartPlan, before: Part | None, now: datetime, *, fast: bool = False
) -> PartWork:
    """The work of the stale stages of a part.

    Args:
        plan: of a part that has stale stages.
        before: the part in the catalogue of before; None: it is new.
        fast: read only stamps of parts: all slices of a stale stage count as stale, and due URLs are not counted.
    """
    part = plan.part
    stages: list[StageWork] = []
    upstream: _Slices | None = None  # of the stage before, if that runs
    for stage in plan.stale:
        stamp = workspace.part_stamp(part.name, stage)
        if stage == "rows":
            slices = _row_slices(corpus, workspace, part, fast)
        elif upstream is None:
            slices = _media_or_features_slices(corpus, workspace, part, stage, now, fast)
        else:
            slices = _Slices(upstream.rows, upstream.of, is_exact=False)
        settings: tuple[Change, ...] = ()
        if stamp is not None and stamp.settings:
            settings = tuple(changed_settings(stamp.settings, named_settings(corpus, part, stage)))
        rules = next((source.filter for source in corpus.sources if source.name == part.source), None)
        if stage == "media" and rules is not None and not fast:
            _count_held_back(workspace, part, slices, rules)
        why = _why(corpus, plan, stage, stamp, before, slices, after=plan.stale[0] if upstream else None)
        why += _held_back_text(slices)
        if stage == "media" and rules is not None and fast:
            why += "; which rows the source's filter lets in is not counted in a fast plan"
        numbers = (len(slices.rows), slices.of, sum(slices.rows.values()))
        stages.append(StageWork(stage, *numbers, why, slices.urls_due, slices.is_exact and not fast, settings))
        upstream = slices
    last = last_attempts(workspace, part.name).get(plan.stale[0])
    note = f"failed {last.tries}x: {last.error}".splitlines()[0] if last and last.error else ""
    return PartWork(part, tuple(stages), is_new=before is None or before.removed, note=note)


def _row_slices(corpus: Corpus, workspace: Workspace, part: Part, fast: bool) -> _Slices:
    source = next(source for source in corpus.sources if source.name == part.source)
    spans = slice_spans(part, source.slice_rows)
    settings = stage_settings(corpus, part, "rows")
    stale = {
        name: high - low
        for name, (low, high) in spans.items()
        if fast or not _is_fresh(workspace, part, "rows", name, fingerprint(settings, rows_input(part), name))
    }
    return _Slices(stale, len(spans))


def _media_or_features_slices(
    corpus: Corpus, workspace: Workspace, part: Part, stage: PartStage, now: datetime, fast: bool
) -> _Slices:
    """The slices that run in the first stale stage of a part whose rows are up to date."""
    rows = workspace.part_stamp(part.name, "rows")
    assert rows is not None
    if fast:  # the stamp of a part holds only the sum of the rows: spread it evenly, the first slice takes the rest
        shares = dict.fromkeys(rows.slices, rows.rows // max(len(rows.slices), 1))
        shares |= {name: shares[name] + rows.rows - sum(shares.values()) for name in rows.slices[:1]}
        return _Slices(shares, len(rows.slices))
    settings = stage_settings(corpus, part, stage)
    part_stamp = workspace.part_stamp(part.name, "media")
    slices = _Slices(of=len(rows.slices))
    for name in rows.slices:
        read = workspace.slice_stamp(part.name, "rows", name)
        fetched = workspace.slice_stamp(part.name, "media", name)
        if read is None or (fetched is None and stage == "features"):
            slices.rows[name] = read.rows if read else 0
            continue
        digest = read.digest if stage == "media" or fetched is None else features_input(read.digest, fetched.digest)
        is_fresh = _is_fresh(workspace, part, stage, name, fingerprint(settings, digest))
        if stage == "features" or fetched is None:
            scored = workspace.slice_stamp(part.name, "features", name) if stage == "features" else None
            if not is_fresh or (scored is not None and lacks_text_vectors(corpus, scored)):
                slices.rows[name] = read.rows
            continue
        if rules_changed(fetched.deciding, deciding_settings(corpus, part.source)):
            slices.rows[name] = read.rows
            continue
        reuse = media_reuse(corpus, part, part_stamp, fetched)
        if not is_fresh and not _is_fresh(workspace, part, stage, name, fingerprint(reuse.settings, digest)):
            slices.rows[name] = read.rows
        elif not is_fresh or reuse.again.rows or is_due(fetched.next_retry_at, now):
            slices.rows[name], urls = _due_retries(workspace, part, name, now, reuse.again.errors)
            slices.urls_due += urls
    return slices


def _count_held_back(workspace: Workspace, part: Part, slices: _Slices, rules: SourceFilter) -> None:
    """Count the rows of the slices that their source's filter does not let in, where the rows are read already."""
    for name in slices.rows:
        table = workspace.table(part.name, "rows", name)
        if table.exists():
            slices.held_back.update(rule_reasons(read_table(table).to_pylist(), rules).values())


def _held_back_text(slices: _Slices) -> str:
    if not slices.held_back:
        return ""
    rows = sum(slices.rows.values())
    counts = ", ".join(f"{rule} {count:,}" for rule, count in slices.held_back.most_common())
    return f"; the source's filter lets in {rows - slices.held_back.total():,} of {rows:,} rows ({counts})"


def _is_fresh(workspace: Workspace, part: Part, stage: PartStage, name: str, expected: str) -> bool:
    stamp = workspace.slice_stamp(part.name, stage, name)
    return stamp is not None and stamp.fingerprint == expected and workspace.table(part.name, stage, name).exists()


def _due_retries(workspace: Workspace, part: Part, name: str, now: datetime, errors: frozenset[str]) -> tuple[int, int]:
    """The numbers of rows and of distinct URLs of a slice that are due: by their time, or by their error."""
    media = pl.DataFrame(read_table(workspace.table(part.name, "media", name), ["uid", "error", "next_retry_at"]))
    due = media.filter((pl.col("next_retry_at") <= now) | pl.col("error").is_in(list(errors))).select("uid")
    rows = pl.DataFrame(read_table(workspace.table(part.name, "rows", name), ["uid", "url"]))
    urls = due.join(rows, on="uid", how="left")["url"].n_unique()
    return len(due), urls


def _why(
    corpus: Corpus,
    plan: PartPlan,
    stage: PartStage,
    stamp: PartStamp | None,
    before: Part | None,
    slices: _Slices,
    after: str | None,
) -> str:
    part = plan.part
    if stage == "rows" and (before is None or before.removed):
        return "the part is new"
    if stage == "rows" and before is not None and before.digest != part.digest:
        return "the content of its source file changed"
    if stage == "rows" and before is not None and (before.start, before.stop) != (part.start, part.stop):
        return "its range of rows changed"
    if stage == "rows" and stamp is not None and not slices.rows:
        return "the opt-out has changed"
    if stamp is None:
        finished = slices.of - len(slices.rows)
        part_way = f"not finished: {finished} of {slices.of} slices are done" if finished else "not finished"
        return part_way if after is None else f"follows {after}"
    if after is None and (FILTER_CHANGED in plan.why or "retries due" in plan.why):
        return plan.why.removeprefix("media: ")
    only_fills = plan.why == f"features: {lacking_vectors(stamp)}"
    change = lacking_vectors(stamp) if only_fills else what_changed(corpus, part, stage, stamp)
    if after is not None and change.endswith("input changed"):
        return f"follows {after}"
    return change
