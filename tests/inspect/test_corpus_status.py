"""The state of a corpus."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mmdata.inspect.audit import no_failed_parts
from mmdata.inspect.corpus_status import corpus_status
from mmdata.inspect.progress import SAMPLED_PARTS, SLICES_PER_SAMPLED_PART
from mmdata.workspace.attempts import begin_attempt, end_attempt, fail_attempt
from mmdata.workspace.disk_use import DiskUse, disk_use, kind_of
from mmdata.workspace.layout import Workspace
from mmdata.workspace.lease import leased
from tests.support.standin_stages import Small, make_small


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
    small.config_path.write_text(text.replace("model: demo", "model: ViT-L-14, pretrained: openai"))
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


def begin(small: Small, part: str = "web-000000", stage: str = "media", ago_s: float = 0) -> datetime:
    """Note a try that has not ended; returns when it began."""
    begin_attempt(small.workspace, part, stage)  # type: ignore[arg-type]
    began = datetime.now(UTC) - timedelta(seconds=ago_s)
    path = small.workspace.part_dir(part) / f"{stage}.attempt.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "started_at": began.isoformat()}))
    return began


def time_slices(small: Small, part: str, stage: str, seconds: float) -> None:
    """As if each slice of a stage had taken so long."""
    for path in (small.workspace.part_dir(part) / stage).glob("*.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "numbers": {"seconds": seconds}}))


def test_a_part_whose_process_died_is_stuck_and_says_what_to_do(small: Small) -> None:
    small.build()
    small.workspace.clear_part_stamp("web-000000", "media")
    begin(small)
    (one,) = corpus_status(small.corpus, small.workspace).underway
    assert (one.part, one.stage, one.holder, one.eta_s) == ("web-000000", "media", None, None)
    assert (one.slices_done, one.slices) == (2, 2)
    assert "died" in one.advice
    assert "mmdata build" in one.advice


def test_a_part_that_somebody_works_on_is_stuck_only_without_a_slice_for_long(small: Small) -> None:
    small.build()
    small.workspace.clear_part_stamp("web-000000", "media")
    began = begin(small, ago_s=10)
    with leased(small.workspace, "part-web-000000", "media of web-000000"):
        fresh = corpus_status(small.corpus, small.workspace)
        late = corpus_status(small.corpus, small.workspace, began + timedelta(hours=3))
    assert fresh.underway[0].idle_s < 60  # of the slices that were stamped just now
    assert fresh.stuck == []
    assert str(os.getpid()) in (fresh.underway[0].holder or "")
    assert "no slice was finished for 18" in late.stuck[0].advice
    assert f"process {os.getpid()} on" in late.stuck[0].advice


def test_what_is_left_is_told_by_the_rates_of_finished_slices(small: Small) -> None:
    small.write("c.txt", *(f"picture {n}" for n in range(8)))
    small.build()
    for part in ("web-000000", "web-000001", "web-000002"):
        time_slices(small, part, "media", 20.0)
    for name in ("0002", "0003"):  # two of the four slices of eight rows are left
        small.workspace.clear_slice_stamp("web-000002", "media", name)
    small.workspace.clear_part_stamp("web-000002", "media")
    begin(small, "web-000002")
    with leased(small.workspace, "part-web-000002", "media of web-000002"):
        status = corpus_status(small.corpus, small.workspace)
    (one,) = status.underway
    assert (one.slices_done, one.slices) == (2, 4)
    assert one.eta_s == pytest.approx(40.0)
    # four rows of media, at the 60 seconds that the five rows of the finished parts took
    assert status.eta_s == pytest.approx(4 * 60 / 5)
    assert status.eta_without == ["features of web"]  # the stand-in does not say how long it took


def test_slices_of_another_time_are_not_counted_as_done(small: Small) -> None:
    small.build()
    small.config_path.write_text(small.config_path.read_text() + "download: {image_size: 99}\n")
    begin(small)
    (one,) = corpus_status(small.corpus, small.workspace).underway
    assert (one.slices_done, one.slices) == (0, 2)


def test_status_reads_no_slice_of_a_finished_part(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(SAMPLED_PARTS + 4):
        small.write(f"p{n:02d}.txt", "a boat")
    small.build()
    reads: list[str] = []
    real = Workspace.slice_stamp
    monkeypatch.setattr(Workspace, "slice_stamp", lambda self, *which: reads.append(which[0]) or real(self, *which))  # type: ignore[func-returns-value]
    corpus_status(small.corpus, small.workspace)
    assert len(reads) <= 3 * SAMPLED_PARTS * SLICES_PER_SAMPLED_PART


def test_disk_use_counts_every_file_once_by_its_kind(small: Small) -> None:
    small.build()
    (small.workspace.root / "parts" / ".tmp-abc-x").write_bytes(b"12345")
    use = disk_use(small.workspace)
    everything = [path for path in Path(small.workspace.root.path).rglob("*") if path.is_file()]
    assert sum(one.files for one in use.values()) == len(everything)
    assert sum(one.bytes for one in use.values()) == sum(path.stat().st_size for path in everything)
    assert use["left over by killed processes"] == DiskUse(1, 5)
    assert use["media tables"].files == 3
    assert kind_of("parts/web-000000/media/0000-ab.tar") == "media"
    assert kind_of("parts/web-000000/media/0000.json") == kind_of("parts/web-000000/media.json") == "stamps"
    assert kind_of("releases/ab/manifest.json") == "releases"
