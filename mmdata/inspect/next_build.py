"""What the next build would do, and why, for `mmdata plan`. Nothing is written."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from mmdata.config import Corpus
from mmdata.display import without_credentials
from mmdata.engine.freshness import plan_parts
from mmdata.inspect.next_parts import PartWork, part_work
from mmdata.inspect.next_release import Forecast, forecast
from mmdata.inspect.next_sources import FileChange, PlannedWorkspace, file_changes
from mmdata.optout.lists import lists_changed
from mmdata.releases.draft import find_draft
from mmdata.select.balance_cost import BalanceCost, balance_cost
from mmdata.sources.catalog import look_at_sources
from mmdata.workspace.layout import PART_STAGES, Catalog, PartStage, Workspace


@dataclass(frozen=True, slots=True)
class StageTotal:
    """The work of a stage, summed over all parts; see `StageWork`."""

    stage: PartStage
    parts: int
    slices: int
    rows: int
    urls_due: int
    is_exact: bool


@dataclass(frozen=True, slots=True)
class RefreshPlan:
    """What a build would do now.

    Args:
        files: source files that differ from the catalogue.
        parts: number of live parts.
        removed: parts that will be removed.
        work: the parts that need work, in catalogue order.
        opt_out_changes: the entries of an opt-out list have changed, so the rows of every part are checked again.
        balance: what balance would do, by the counts of the latest selection; None if there is none, or if it was not
            read.
    """

    files: list[FileChange]
    parts: int
    removed: list[str]
    work: list[PartWork]
    opt_out_changes: bool
    forecast: Forecast
    balance: BalanceCost | None = None

    @property
    def totals(self) -> list[StageTotal]:
        """The totals of each stage that has work."""
        totals = []
        for stage in PART_STAGES:
            if works := [work for part in self.work for work in part.stages if work.stage == stage]:
                slices, rows, urls = (sum(getattr(w, name) for w in works) for name in ("slices", "rows", "urls_due"))
                totals.append(StageTotal(stage, len(works), slices, rows, urls, all(w.is_exact for w in works)))
        return totals

    @property
    def settings(self) -> dict[tuple[PartStage, str], int]:
        """(stage, changed setting in words) -> number of parts that it affects."""
        works = [work for part in self.work for work in part.stages]
        return dict(sorted(Counter((work.stage, str(change)) for work in works for change in work.settings).items()))

    def to_json(self) -> dict[str, Any]:
        """The plan as plain values for JSON."""
        return {
            "files": [asdict(change) for change in self.files],
            "parts": {
                "live": self.parts,
                "removed": self.removed,
                "work": [
                    {
                        "part": work.part.name,
                        "file": without_credentials(work.part.path),
                        "is_new": work.is_new,
                        "note": work.note,
                        "stages": [asdict(stage) for stage in work.stages],
                    }
                    for work in self.work
                ],
            },
            "totals": [asdict(total) for total in self.totals],
            "opt_out_changes": self.opt_out_changes,
            "release": asdict(self.forecast),
            "balance": asdict(self.balance) if self.balance else None,
        }


def plan_refresh(
    corpus: Corpus, workspace: Workspace, before: Catalog | None = None, now: datetime | None = None, *, fast: bool
) -> RefreshPlan:
    """Plan the next build without writing anything.

    Args:
        before: the catalogue from before the sources were last read; they are then not read again. None: the sources
            are read, and the plan is made for the catalogue that results.
        fast: read only the catalogue and the stamps of the parts. Counts are then upper bounds, and due URLs are not
            counted.

    Raises:
        UserError: corpus.yaml does not fit the source files; see `update_catalog`.
    """
    now = now or datetime.now(UTC)
    old = workspace.catalog() if before is None else before
    reads_sources = before is None and not fast
    new = look_at_sources(corpus, workspace, old, may_write=False) if reads_sources else workspace.catalog()
    planned = PlannedWorkspace(workspace, new)
    names = {source.name for source in corpus.sources}
    work = [
        part_work(corpus, planned, plan, old.parts.get(plan.part.name), now, fast=fast)
        for plan in plan_parts(corpus, planned, now)
        if plan.stale
    ]
    live = {part.name for part in new.live_parts() if part.source in names}
    opt_out_changes = reads_sources and lists_changed(corpus.optout, workspace)
    return RefreshPlan(
        file_changes(old, new, names),
        len(live),
        [part.name for part in old.live_parts() if part.name not in live],
        work,
        opt_out_changes,
        forecast(corpus, planned, work, opt_out_changes),
        None if fast else _balance_cost(corpus, workspace),
    )


def _balance_cost(corpus: Corpus, workspace: Workspace) -> BalanceCost | None:
    draft = find_draft(workspace)
    release = draft.release_id if draft else workspace.latest()
    return balance_cost(corpus.select, workspace.release_dir(release), release) if release else None
