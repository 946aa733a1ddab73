"""The state of a corpus, read from its workspace: parts by stage, what failed and why, the latest release."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from mmdata.attempts import last_attempts
from mmdata.config import Corpus
from mmdata.plan import configured_parts, is_due, plan_part
from mmdata.stage import add_counts
from mmdata.workspace import PART_STAGES, Part, Workspace, read_json

State = Literal["done", "waiting", "started", "failed", "refused"]
"""`waiting`: not done, or made from something older. `started`: a process works on it, or died. `refused`: done, but
not accepted into releases."""


@dataclass(frozen=True, slots=True)
class PartStatus:
    """A part and how far it is.

    Args:
        stages: stage -> state.
        why: what it waits for or failed of; empty: it is up to date.
        next_retry_at: UTC ISO time of the first retry of what could not be fetched; None: none is planned.
    """

    part: Part
    rows: int
    stages: Mapping[str, State]
    why: str
    next_retry_at: str | None

    @property
    def ready(self) -> bool:
        return all(state == "done" for state in self.stages.values())


@dataclass(frozen=True, slots=True)
class Status:
    """A corpus at this moment.

    Args:
        reasons: stage -> reason -> rows, over all parts, of what was refused or failed.
        retries_due: parts whose retries are due now.
        unreadable: source file -> error.
        release: the latest release's manifest without its long lists; None before the first.
    """

    parts: Sequence[PartStatus]
    reasons: Mapping[str, Mapping[str, int]]
    retries_due: int
    unreadable: Mapping[str, str]
    release: Mapping[str, Any] | None


def corpus_status(corpus: Corpus, workspace: Workspace, now: datetime | None = None) -> Status:
    """Read the state of every part of a corpus from its stamps."""
    now = now or datetime.now(UTC)
    parts = [part_status(corpus, workspace, part) for part in configured_parts(corpus, workspace)]
    stamps = [(stage, workspace.part_stamp(one.part.name, stage)) for one in parts for stage in PART_STAGES]
    return Status(
        parts=parts,
        reasons={
            stage: add_counts(stamp.reasons for of, stamp in stamps if of == stage and stamp is not None)
            for stage in PART_STAGES
        },
        retries_due=sum(is_due(one.next_retry_at, now) for one in parts),
        unreadable={
            path: str(entry.get("error") or "unreadable")
            for path, entry in workspace.catalog().files.items()
            if entry.get("status") == "unreadable"
        },
        release=latest_release(workspace),
    )


def part_status(corpus: Corpus, workspace: Workspace, part: Part) -> PartStatus:
    """How far one part is."""
    plan = plan_part(corpus, workspace, part, now=datetime.min.replace(tzinfo=UTC))  # due retries are told apart
    attempts = last_attempts(workspace, part.name)
    stages: dict[str, State] = {}
    notes: list[str] = []
    for stage in PART_STAGES:
        stamp, attempt = workspace.part_stamp(part.name, stage), attempts.get(stage)
        if stage not in plan.stale:
            stages[stage] = "done" if stamp is None or stamp.accepted else "refused"
            if stamp is not None and not stamp.accepted:
                notes.append(f"{stage}: {stamp.reason}")
        elif attempt is None:
            stages[stage] = "waiting"
        elif attempt.error is None:
            stages[stage] = "started"
            notes.append(f"{stage}: started {attempt.started_at}; still at work, or its process died")
        else:
            stages[stage] = "failed"
            notes.append(f"{stage}: failed {attempt.tries}x: {attempt.error}")
    media = workspace.part_stamp(part.name, "media")
    retry = media.next_retry_at if media is not None and "media" not in plan.stale else None
    return PartStatus(part, part.stop - part.start, stages, "; ".join(notes) or plan.why, retry)


def latest_release(workspace: Workspace) -> dict[str, Any] | None:
    """What the latest release's manifest says, its long lists counted instead."""
    release_id = workspace.latest()
    manifest = read_json(workspace.release_dir(release_id) / "manifest.json") if release_id else None
    if manifest is None:
        return None
    return {
        "release_id": release_id,
        "path": str(workspace.release_dir(str(release_id))),
        "created_at": manifest.get("created_at"),
        "counts": manifest.get("counts", {}),
        "reasons": dict(Counter(manifest.get("reasons", {})).most_common()),
        "scorer": manifest.get("scorer", {}),
        "shards": len(manifest.get("shards", [])),
    }
