"""The state of a corpus."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from standin_stages import Small, make_small

from mmdata.attempts import begin_attempt, end_attempt, fail_attempt
from mmdata.audit import no_failed_parts
from mmdata.status import corpus_status


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Small:
    return make_small(tmp_path, monkeypatch)


def states(small: Small) -> dict[str, tuple[str, ...]]:
    return {one.part.name: tuple(one.stages.values()) for one in corpus_status(small.corpus, small.workspace).parts}


def test_parts_are_done_waiting_or_refused(small: Small) -> None:
    small.write("b.txt", "gone")
    small.write("c.txt", "boom")
    small.build()
    assert states(small) == {
        "web-000000": ("done", "done", "done"),
        "web-000001": ("done", "refused", "done"),
        "web-000002": ("done", "waiting", "waiting"),
    }
    second = corpus_status(small.corpus, small.workspace).parts[1]
    assert not second.ready
    assert "0% fetched" in second.why


def test_a_failed_attempt_says_why_and_a_success_forgets_it(small: Small) -> None:
    small.write("a.txt", "boom")
    small.build()
    workspace = small.workspace
    attempt = begin_attempt(workspace, "web-000000", "media")
    assert states(small)["web-000000"] == ("done", "started", "waiting")
    fail_attempt(workspace, "web-000000", "media", attempt, "the disk is full", "abc")
    attempt = begin_attempt(workspace, "web-000000", "media")
    fail_attempt(workspace, "web-000000", "media", attempt, "the disk is full", "abc")
    part = corpus_status(small.corpus, workspace).parts[0]
    assert part.stages["media"] == "failed"
    assert "failed 2x: the disk is full" in part.why
    end_attempt(workspace, "web-000000", "media")
    assert states(small)["web-000000"] == ("done", "waiting", "waiting")


def test_changed_settings_make_the_stages_wait_again(small: Small) -> None:
    small.build()
    text = small.config_path.read_text()
    small.config_path.write_text(text + "score: {model: ViT-L-14}\n")
    assert states(small)["web-000000"] == ("done", "done", "waiting")


def test_retries_that_are_due_are_counted_and_hold_nothing_back(small: Small) -> None:
    small.build()
    stamp = small.workspace.part_stamp("web-000000", "media")
    assert stamp is not None
    due = replace(stamp, next_retry_at="2026-01-01T00:00:00+00:00")
    small.workspace.write_part_stamp("web-000000", "media", due)
    before = corpus_status(small.corpus, small.workspace, datetime(2025, 12, 31, tzinfo=UTC))
    after = corpus_status(small.corpus, small.workspace, datetime(2026, 1, 2, tzinfo=UTC))
    assert (before.retries_due, after.retries_due) == (0, 1)
    assert all(part.ready for part in after.parts)


def test_release_and_unreadable_files_are_named(small: Small) -> None:
    small.write("bad.txt", "?")
    small.build()
    status = corpus_status(small.corpus, small.workspace)
    assert status.release is not None
    assert status.release["release_id"] == small.workspace.latest()
    assert status.unreadable == {str(small.folder / "inbox" / "bad.txt"): "not text"}


def test_nothing_needs_a_person_until_something_does(small: Small) -> None:
    small.build()
    assert no_failed_parts(small.corpus, small.workspace).passed
    small.write("bad.txt", "?")
    small.write("c.txt", "gone")
    small.write("d.txt", "boom")
    small.build()
    begin_attempt(small.workspace, "web-000003", "media")
    found = no_failed_parts(small.corpus, small.workspace)
    assert not found.passed
    troubles = {Path(str(one["what"])).name: str(one["why"]) for one in found.examples}
    assert set(troubles) == {"bad.txt", "web-000002", "web-000003"}
    assert "never finished" in troubles["web-000003"]
    still_at_it = no_failed_parts(small.corpus, small.workspace, running={"web-000003"})
    assert "web-000003" not in {one["what"] for one in still_at_it.examples}
