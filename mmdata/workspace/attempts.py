"""Attempts: the last unsuccessful try at a part's stage, kept until the stage succeeds.

A stamp says what is done; an attempt says what was tried and is not done. It is written before the work starts, so that
a process that dies leaves a trace, too.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from mmdata.storage.atomic import publish_json, withdraw
from mmdata.workspace.json_files import read_derived
from mmdata.workspace.layout import PART_STAGES, PartStage, Workspace


@dataclass(frozen=True, slots=True)
class Attempt:
    """A try at a stage that has not succeeded.

    Args:
        started_at: UTC ISO time of the latest try.
        tries: how many tries in a row.
        error: the error that ended it; None: it is still running, or its process died.
        fingerprint: of the part's plan after the failure; an equal plan later means that nothing has changed since.
    """

    started_at: str
    tries: int
    error: str | None = None
    fingerprint: str | None = None


def last_attempt(workspace: Workspace, part: str, stage: PartStage) -> Attempt | None:
    """The unfinished attempt at a stage; None if the latest one succeeded or there was none."""
    return read_derived(workspace.part_dir(part) / f"{stage}.attempt.json", lambda data: Attempt(**data))


def last_attempts(workspace: Workspace, part: str) -> dict[PartStage, Attempt]:
    """The unfinished attempts at a part, by stage."""
    attempts = {stage: last_attempt(workspace, part, stage) for stage in PART_STAGES}
    return {stage: attempt for stage, attempt in attempts.items() if attempt is not None}


def begin_attempt(workspace: Workspace, part: str, stage: PartStage) -> Attempt:
    """Record that a try begins."""
    before = last_attempt(workspace, part, stage)
    attempt = Attempt(datetime.now(UTC).isoformat(timespec="seconds"), tries=before.tries + 1 if before else 1)
    _write(workspace, part, stage, attempt)
    return attempt


def fail_attempt(
    workspace: Workspace, part: str, stage: PartStage, attempt: Attempt, error: str, fingerprint: str | None
) -> None:
    """Record the error that ended a try."""
    _write(workspace, part, stage, Attempt(attempt.started_at, attempt.tries, error, fingerprint))


def end_attempt(workspace: Workspace, part: str, stage: PartStage) -> None:
    """Delete the record, because the stage has succeeded."""
    withdraw(workspace.part_dir(part) / f"{stage}.attempt.json")


def _write(workspace: Workspace, part: str, stage: PartStage, attempt: Attempt) -> None:
    publish_json(workspace.part_dir(part) / f"{stage}.attempt.json", asdict(attempt))
