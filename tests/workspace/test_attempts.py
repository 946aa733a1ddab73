"""Attempts: a try leaves a trace until its stage succeeds."""

from __future__ import annotations

from pathlib import Path

from mmdata.workspace.attempts import begin_attempt, end_attempt, fail_attempt, last_attempt, last_attempts
from mmdata.workspace.layout import Workspace

PART = "web-000000"


def test_tries_are_counted_until_the_stage_succeeds(tmp_path: Path) -> None:
    workspace = Workspace(str(tmp_path))
    assert last_attempts(workspace, PART) == {}
    first = begin_attempt(workspace, PART, "media")
    assert (first.tries, first.error) == (1, None)
    fail_attempt(workspace, PART, "media", first, "the disk is full", "0123")
    failed = last_attempt(workspace, PART, "media")
    assert failed is not None
    assert (failed.started_at, failed.error, failed.fingerprint) == (first.started_at, "the disk is full", "0123")
    second = begin_attempt(workspace, PART, "media")
    assert (second.tries, second.error) == (2, None), "a new try has not failed yet"
    assert last_attempts(workspace, PART) == {"media": second}
    end_attempt(workspace, PART, "media")
    assert last_attempts(workspace, PART) == {}
    assert begin_attempt(workspace, PART, "media").tries == 1
