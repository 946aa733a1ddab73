"""The work that a stale part means: which stages and slices run, over how many rows, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import polars as pl

from mmdata.config import Corpus
from mmdata.config.setting_changes import Change, changed_settings
from mmdata.engine.freshness import (
    PartPlan,
    features_input,
    is_due,
    named_settings,
    rows_input,
    stage_settings,
    what_changed,
)
from mmdata.fingerprint import fingerprint
from mmdata.sources.stage import slice_spans
from mmdata.storage.tables import read_table
from mmdata.workspace.attempts import last_attempts
from mmdata.workspace.layout import Part, PartStage, PartStamp, Workspace


@dataclass(frozen=True, slots=True)
class StageWork:
    """What one stage of a part has to do.

    Args:
        slices, of: slices that run, of how many.
        rows: rows of these slices; of a retry the rows that are due.
        urls_due: failed URLs whose retry is due.
        is_exact: False: it depends on what an earlier stage gives, and may come to less.
        why: for people, in one line.
        settings: the settings that changed, where that is the reason.
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
        is_new: no release has had its rows yet.
        note: how the last try ended, if it failed.
    """

    part: Part
    stages: tuple[StageWork, ...]
    is_new: bool = False
    note: str = ""

    @property
    def only_retries(self) -> bool:
        """Whether nothing but retries is asked for: they may all fail again, and then nothing changes."""
        return self.stages[0].why.startswith("retries due")


@dataclass
class _Slices:
    """Slice -> rows of those that run; `exact` as in StageWork."""

    rows: dict[str, int] = field(default_factory=dict)
    of: int = 0
    urls_due: int = 0
    exact: bool = True


def part_work(
    corpus: Corpus, workspace: Workspace, plan: PartPlan, before: Part | None, now: datetime, *, fast: bool = False
) -> PartWork:
    """What the stale stages of a part come to.

    Args:
        plan: of the part; it has stale stages.
        before: the part as the catalogue has it so far; None: it is new.
        fast: read part stamps only; slices then count as stale with their part, and due URLs are not counted.
    """
    part = plan.part
    stamps = {stage: workspace.part_stamp(part.name, stage) for stage in ("rows", "media", "features")}
    done: list[StageWork] = []
    upstream: _Slices | None = None  # of the stage before, where that runs
    for stage in plan.stale:
        stamp = stamps[stage]
        if stage == "rows":
            found = _row_slices(corpus, workspace, part, fast)
        elif upstream is None:
            found = _own_slices(corpus, workspace, part, stage, stamps, now, fast)
        else:
            found = _Slices(upstream.rows, upstream.of, exact=False)
        settings: tuple[Change, ...] = ()
        if stamp is not None and stamp.settings:
            settings = tuple(changed_settings(stamp.settings, named_settings(corpus, part, stage)))
        why = _why(corpus, plan, stage, stamp, before, found, after=plan.stale[0] if upstream else None)
        work = StageWork(
            *(stage, len(found.rows), found.of, sum(found.rows.values()), why),
            urls_due=found.urls_due,
            is_exact=found.exact and not fast,
            settings=settings,
        )
        done.append(work)
        upstream = found
    failed = last_attempts(workspace, part.name).get(plan.stale[0])
    note = f"failed {failed.tries}x: {failed.error}".splitlines()[0] if failed and failed.error else ""
    return PartWork(part, tuple(done), is_new=before is None or before.removed, note=note)


def _row_slices(corpus: Corpus, workspace: Workspace, part: Part, fast: bool) -> _Slices:
    source = next(one for one in corpus.sources if one.name == part.source)
    spans = slice_spans(part, source.slice_rows)
    settings = stage_settings(corpus, part, "rows")
    stale = {
        name: high - low
        for name, (low, high) in spans.items()
        if fast or not _is_fresh(workspace, part, "rows", name, fingerprint(settings, rows_input(part), name))
    }
    return _Slices(stale, len(spans))


def _own_slices(
    corpus: Corpus,
    workspace: Workspace,
    part: Part,
    stage: PartStage,
    stamps: Mapping[str, PartStamp | None],
    now: datetime,
    fast: bool,
) -> _Slices:
    """The slices of media or features that run where the stages before do not."""
    rows = stamps["rows"]
    assert rows is not None
    if fast:
        shares = dict.fromkeys(rows.slices, rows.rows // max(len(rows.slices), 1))
        shares |= {name: shares[name] + rows.rows - sum(shares.values()) for name in rows.slices[:1]}
        return _Slices(shares, len(rows.slices))
    settings = stage_settings(corpus, part, stage)
    found = _Slices(of=len(rows.slices))
    for name in rows.slices:
        above = workspace.slice_stamp(part.name, "rows", name)
        fetched = workspace.slice_stamp(part.name, "media", name)
        if above is None or (fetched is None and stage == "features"):
            found.rows[name] = above.rows if above else 0
            continue
        digest = above.digest if stage == "media" or fetched is None else features_input(above.digest, fetched.digest)
        if not _is_fresh(workspace, part, stage, name, fingerprint(settings, digest)):
            found.rows[name] = above.rows
        elif stage == "media" and fetched is not None and is_due(fetched.next_retry_at, now):
            found.rows[name], urls = _due(workspace, part, name, now)
            found.urls_due += urls
    return found


def _is_fresh(workspace: Workspace, part: Part, stage: PartStage, name: str, expected: str) -> bool:
    stamp = workspace.slice_stamp(part.name, stage, name)
    return stamp is not None and stamp.fingerprint == expected and workspace.table(part.name, stage, name).exists()


def _due(workspace: Workspace, part: Part, name: str, now: datetime) -> tuple[int, int]:
    """Rows and URLs of a slice whose retry is due."""
    media = pl.DataFrame(read_table(workspace.table(part.name, "media", name), ["uid", "next_retry_at"]))
    due = media.filter(pl.col("next_retry_at") <= now).select("uid")
    rows = pl.DataFrame(read_table(workspace.table(part.name, "rows", name), ["uid", "url"]))
    urls = due.join(rows, on="uid", how="left")["url"].n_unique()
    return len(due), urls


def _why(
    corpus: Corpus,
    plan: PartPlan,
    stage: PartStage,
    stamp: PartStamp | None,
    before: Part | None,
    found: _Slices,
    after: str | None,
) -> str:
    part = plan.part
    if stage == "rows" and (before is None or before.removed):
        return "the part is new"
    if stage == "rows" and before is not None and before.digest != part.digest:
        return "the content of its source file changed"
    if stage == "rows" and before is not None and (before.start, before.stop) != (part.start, part.stop):
        return "its range of rows changed"
    if stage == "rows" and stamp is not None and not found.rows:
        return "the opt-out has changed"
    if stamp is None:
        finished = found.of - len(found.rows)
        part_way = f"not finished: {finished} of {found.of} slices are done" if finished else "not finished"
        return part_way if after is None else f"follows {after}"
    if after is None and "retries due" in plan.why:
        return plan.why.removeprefix("media: ")
    said = what_changed(corpus, part, stage, stamp)
    if after is not None and said.endswith("input changed"):
        return f"follows {after}"
    return said
