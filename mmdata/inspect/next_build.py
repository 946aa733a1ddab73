"""What the next build would do, and why: the sources, the parts, the release. Looks, and writes nothing."""

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
from mmdata.inspect.next_sources import FileChange, Foreseen, file_changes
from mmdata.optout.lists import lists_changed
from mmdata.sources.catalog import look_at_sources
from mmdata.workspace.layout import PART_STAGES, Catalog, PartStage, Workspace


@dataclass(frozen=True, slots=True)
class StageTotal:
    """What a stage has to do over all parts; see `StageWork`."""

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
        files: source files that are not as they were catalogued.
        parts: live parts.
        removed: parts that leave.
        work: the parts that need work, in catalogue order.
        opt_out_changes: a list of what is to be left out has other entries; every part's rows are gone through.
    """

    files: list[FileChange]
    parts: int
    removed: list[str]
    work: list[PartWork]
    opt_out_changes: bool
    forecast: Forecast

    @property
    def totals(self) -> list[StageTotal]:
        """By stage; stages without work are left out."""
        found = []
        for stage in PART_STAGES:
            own = [work for part in self.work for work in part.stages if work.stage == stage]
            if own:
                found.append(
                    StageTotal(
                        stage,
                        parts=len(own),
                        slices=sum(one.slices for one in own),
                        rows=sum(one.rows for one in own),
                        urls_due=sum(one.urls_due for one in own),
                        is_exact=all(one.is_exact for one in own),
                    )
                )
        return found

    @property
    def settings(self) -> dict[tuple[PartStage, str], int]:
        """Changed settings of the part stages, in words -> parts that they concern."""
        seen = Counter(
            (work.stage, str(change)) for part in self.work for work in part.stages for change in work.settings
        )
        return dict(sorted(seen.items()))

    def to_json(self) -> dict[str, Any]:
        """The whole plan as plain values."""
        return {
            "files": [asdict(one) for one in self.files],
            "parts": {
                "live": self.parts,
                "removed": self.removed,
                "work": [
                    {
                        **{
                            "part": one.part.name,
                            "file": without_credentials(one.part.path),
                            "is_new": one.is_new,
                            "note": one.note,
                        },
                        "stages": [asdict(stage) for stage in one.stages],
                    }
                    for one in self.work
                ],
            },
            "totals": [asdict(one) for one in self.totals],
            "opt_out_changes": self.opt_out_changes,
            "release": asdict(self.forecast),
        }


def plan_refresh(
    corpus: Corpus, workspace: Workspace, before: Catalog | None = None, now: datetime | None = None, *, fast: bool
) -> RefreshPlan:
    """Say what a build would do, without doing any of it.

    Args:
        before: the catalogue of before the last look at the sources: no other look is taken then. None: the sources are
            looked at, and what the catalogue would become is planned for.
        fast: read the catalogue and the parts' stamps only: no source file, slice or table. Counts are then upper
            bounds, and due URLs are not counted.

    Raises:
        UserError: corpus.yaml is at odds with the source files; see `update_catalog`.
    """
    now = now or datetime.now(UTC)
    old = workspace.catalog() if before is None else before
    looks = before is None and not fast
    new = look_at_sources(corpus, workspace, old, may_write=False) if looks else workspace.catalog()
    foreseen = Foreseen(workspace, new)
    names = {source.name for source in corpus.sources}
    stale = (plan for plan in plan_parts(corpus, foreseen, now) if plan.stale)
    work = [part_work(corpus, foreseen, plan, old.parts.get(plan.part.name), now, fast=fast) for plan in stale]
    live = {part.name for part in new.live_parts() if part.source in names}
    opt_out_changes = looks and lists_changed(corpus.optout, workspace)
    return RefreshPlan(
        file_changes(old, new, names),
        len(live),
        [part.name for part in old.live_parts() if part.name not in live],
        work,
        opt_out_changes,
        forecast(corpus, foreseen, work, opt_out_changes),
    )
