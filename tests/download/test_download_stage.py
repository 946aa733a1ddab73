"""The media stage on real HTTP: one table and one tar a slice, resumed, retried, killed and repeated."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
import tarfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest

from mmdata.download import image_rows, slices
from mmdata.download.stage import fetch_part
from mmdata.engine import freshness, part_run
from mmdata.errors import DataError, PartFailed
from mmdata.samples import MEDIA, STATUSES
from mmdata.storage.tables import read_table
from tests.support.hostile_server import HostileServer, answer, jpeg, picture


def records(part, slice_name="0000") -> list[dict]:
    return read_table(part.workspace.table(part.name, "media", slice_name)).to_pylist()


def by_url(part, slice_name="0000") -> dict[str, dict]:
    rows = read_table(part.workspace.table(part.name, "rows", slice_name)).to_pylist()
    url_of = {row["uid"]: row["url"] for row in rows}
    return {url_of[record["uid"]]: record for record in records(part, slice_name)}


def tar_of(part, slice_name="0000") -> Path:
    """The tar that the slice's table addresses."""
    table = read_table(part.workspace.table(part.name, "media", slice_name))
    return Path(part.workspace.media_tar(part.name, slice_name, table.schema.metadata).path)


def assert_whole(part, slice_name="0000") -> int:
    """Every row has its record, and every success addresses the picture of its own URL. Returns the successes."""
    rows = read_table(part.workspace.table(part.name, "rows", slice_name)).to_pylist()
    table = read_table(part.workspace.table(part.name, "media", slice_name))
    assert table.schema.remove_metadata() == MEDIA
    assert table["uid"].to_pylist() == [row["uid"] for row in rows]
    tar = tar_of(part, slice_name)
    data = tar.read_bytes()
    successes = 0
    with tarfile.open(tar) as archive:
        members = {member.offset_data: member for member in archive}
    assert [member.name for member in members.values()] == sorted(member.name for member in members.values())
    assert all((m.mtime, m.uid, m.gid, m.mode) == (0, 0, 0, 0o644) for m in members.values())
    addressed = set()
    for row, record in zip(rows, table.to_pylist(), strict=True):
        assert record["status"] in STATUSES
        assert (record["status"] == "success") == (record["error"] is None)
        if record["status"] != "success":
            assert record["offset"] is None
            continue
        successes += 1
        addressed.add(record["offset"])
        assert members[record["offset"]].size == record["length"]
        image = cv2.imdecode(
            np.frombuffer(data[record["offset"] : record["offset"] + record["length"]], np.uint8), cv2.IMREAD_COLOR
        )
        number = int(row["url"].rsplit("/", 1)[1].partition("?")[0])
        assert np.allclose(image.mean((0, 1)), picture(number)[0, 0], atol=3), f"{row['url']} has another's picture"
        assert image.shape[:2] == (record["height"], record["width"])
    assert addressed == set(members), "the tar holds what no row addresses"
    return successes


def test_each_row_gets_the_picture_of_its_own_url_or_a_reason(web, handmade):
    good = [{"url": web.url(f"/jpg/{number}")} for number in range(40)]
    bad = [
        {"url": web.url("/status/404")},
        {"url": "file:///etc/passwd"},
        {"url": "http://10.0.0.1/x.jpg"},
        {"url": web.url("/silent")},
        {"url": web.url("/drip")},
        {"url": None, "problem": "no_url"},
    ]
    part = handmade(good[:20] + bad, good[20:])
    seen = []
    report = fetch_part(part.corpus, part.workspace, part.name, lambda *call: seen.append(call))
    assert assert_whole(part, "0000") + assert_whole(part, "0001") == 40
    assert dict(report.counts) == {"rows": 46, "fetchable": 45, "success": 40, "failed_to_download": 3, "refused": 3}
    assert dict(report.reasons) == {
        "http_404": 1,
        "bad_scheme": 1,
        "private_address": 1,
        "timeout": 1,
        "deadline": 1,
        "bad_row": 1,
    }
    assert report.numbers["success_share"] == pytest.approx(40 / 45)
    assert report.numbers["mean_bytes"] == pytest.approx(np.mean([len(jpeg(n)) for n in range(40)]))
    assert seen[-1] == ("media", 46, 46)
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)
    assert {"host": f"127.0.0.1:{web.port}", "error": "http_404", "rows": 1} in report.tables["failures by host"]
    record = by_url(part)[web.url("/jpg/3")]
    assert record["sha256"] == hashlib.sha256(jpeg(3)).hexdigest()
    assert (record["bytes"], record["mime"], record["ext"], record["attempts"]) == (
        len(jpeg(3)),
        "image/jpeg",
        "jpg",
        1,
    )
    assert (record["original_width"], record["original_height"], record["width"], record["height"]) == (
        320,
        300,
        273,
        256,
    )
    stamp = part.workspace.part_stamp(part.name, "media")
    assert stamp is not None
    assert stamp.accepted
    assert freshness.plan_part(part.corpus, part.workspace, part.workspace.part(part.name)).stale == ("features",)


def test_a_url_is_fetched_once_however_many_rows_share_it(web, handmade):
    shared = [{"url": web.url("/jpg/7"), "caption": f"words {number}"} for number in range(12)]
    part = handmade([*shared, {"url": web.url("/jpg/8")}])
    fetch_part(part.corpus, part.workspace, part.name)
    assert assert_whole(part) == 13
    assert web.hits == {"/jpg/7": 1, "/jpg/8": 1}
    assert len({record["offset"] for record in records(part)}) == 2


def test_a_body_that_is_not_what_the_source_saw_is_not_stored(web, handmade):
    right = hashlib.sha256(jpeg(1)).hexdigest()
    part = handmade(
        [
            {"url": web.url("/jpg/1"), "caption": "right", "expected_sha256": right.upper()},
            {"url": web.url("/jpg/1"), "caption": "wrong", "expected_sha256": "0" * 64},
            {"url": web.url("/jpg/2"), "caption": "wrong", "expected_sha256": right},
            {"url": web.url("/jpg/1"), "caption": "trusting"},
        ]
    )
    report = fetch_part(part.corpus, part.workspace, part.name)
    assert assert_whole(part) == 2
    assert dict(report.reasons) == {"hash_mismatch": 2}
    wrong = [record for record in records(part) if record["error"] == "hash_mismatch"]
    assert all((r["status"], r["length"], r["next_retry_at"]) == ("failed_to_download", None, None) for r in wrong)
    assert {record["sha256"] for record in wrong} == {right, hashlib.sha256(jpeg(2)).hexdigest()}


def test_a_second_run_does_nothing(web, handmade):
    part = handmade([{"url": web.url("/jpg/1")}, {"url": web.url("/status/503")}])
    first = fetch_part(part.corpus, part.workspace, part.name)
    before = web.hits.copy()
    second = fetch_part(part.corpus, part.workspace, part.name)
    assert (first.slices_done, second.slices_done, second.slices_reused) == (1, 0, 1)
    assert web.hits == before
    assert second.counts == first.counts


def test_only_due_failures_are_tried_again_and_successes_never(web, handmade):
    flaky = [f"/busy/{number}" for number in (30, 31)]
    urls = [*(f"/jpg/{number}" for number in range(10)), *flaky, "/status/404", "/status/503"]
    part = handmade([{"url": web.url(path)} for path in urls], retry_after_s=0.001, min_success_share=0)
    fetch_part(part.corpus, part.workspace, part.name)
    first = by_url(part)
    assert first[web.url("/busy/30")]["error"] == "http_429"
    assert first[web.url("/busy/30")]["next_retry_at"] is not None
    assert first[web.url("/status/404")]["next_retry_at"] is None
    web.files |= {path: answer(jpeg(int(path[-2:]))) for path in flaky}
    time.sleep(0.05)
    report = fetch_part(part.corpus, part.workspace, part.name)
    assert assert_whole(part) == 12
    assert report.slices_done == 1
    assert all(web.hits[f"/jpg/{number}"] == 1 for number in range(10))
    assert (web.hits["/status/404"], web.hits["/status/503"], web.hits["/busy/30"]) == (1, 2, 2)
    second = by_url(part)
    assert second[web.url("/busy/30")]["attempts"] == 2
    assert second[web.url("/status/503")]["attempts"] == 2
    assert second[web.url("/jpg/1")]["fetched_at"] == first[web.url("/jpg/1")]["fetched_at"]


def test_a_url_is_given_up_after_max_attempts(web, handmade):
    part = handmade([{"url": web.url("/status/503")}, {"url": web.url("/jpg/1")}], retry_after_s=0.001, max_attempts=3)
    for _ in range(5):
        fetch_part(part.corpus, part.workspace, part.name)
        time.sleep(0.02)
    assert web.hits["/status/503"] == 3
    assert by_url(part)[web.url("/status/503")]["next_retry_at"] is None


def test_the_next_retry_waits_its_time(web, handmade):
    part = handmade([{"url": web.url("/busy/1?after=7200")}, {"url": web.url("/jpg/1")}], retry_after_s=60)
    fetch_part(part.corpus, part.workspace, part.name)
    due = by_url(part)[web.url("/busy/1?after=7200")]["next_retry_at"]
    assert timedelta(seconds=7100) < due - datetime.now(UTC) < timedelta(seconds=7210)
    stamp = part.workspace.part_stamp(part.name, "media")
    assert stamp is not None
    assert freshness.is_due(stamp.next_retry_at, due)
    assert not freshness.is_due(stamp.next_retry_at)


class Killed(BaseException):
    """As far as the code can tell, the process ends here."""


@pytest.mark.parametrize("moment", ["table", "stamp"])
def test_a_killed_retry_leaves_the_part_as_sound_as_it_was(web, handmade, monkeypatch, moment):
    part = handmade(
        [{"url": web.url(f"/jpg/{n}")} for n in range(6)] + [{"url": web.url("/busy/40")}], retry_after_s=0.001
    )
    fetch_part(part.corpus, part.workspace, part.name)
    sound = part.workspace.part_stamp(part.name, "media")
    web.files["/busy/40"] = answer(jpeg(40))
    time.sleep(0.05)
    with monkeypatch.context() as patch:
        if moment == "table":
            patch.setattr(part_run, "write_table", lambda *_: (_ for _ in ()).throw(Killed))
        else:
            patch.setattr(part.workspace, "write_slice_stamp", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            fetch_part(part.corpus, part.workspace, part.name)
    assert part.workspace.part_stamp(part.name, "media") == sound, "a retry that is due holds no release back"
    assert assert_whole(part) == (6 if moment == "table" else 7)
    fetch_part(part.corpus, part.workspace, part.name)
    assert assert_whole(part) == 7


def test_a_run_killed_before_its_tar_leaves_the_old_state(web, handmade, monkeypatch):
    part = handmade([{"url": web.url("/jpg/1")}, {"url": web.url("/busy/2")}], retry_after_s=0.001)
    fetch_part(part.corpus, part.workspace, part.name)
    old = [path.read_bytes() for path in (tar_of(part), part.workspace.table(part.name, "media", "0000"))]
    time.sleep(0.05)
    with monkeypatch.context() as patch:
        patch.setattr(slices, "write_tar", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises((Killed, PartFailed)):
            fetch_part(part.corpus, part.workspace, part.name)
    assert old == [path.read_bytes() for path in (tar_of(part), part.workspace.table(part.name, "media", "0000"))]
    fetch_part(part.corpus, part.workspace, part.name)
    assert assert_whole(part) == 2
    assert web.hits["/jpg/1"] == 1


@pytest.mark.parametrize("damaged", ["table", "media_tar"])
def test_a_damaged_file_is_fetched_anew(web, handmade, damaged):
    part = handmade([{"url": web.url("/jpg/1")}])
    fetch_part(part.corpus, part.workspace, part.name)
    path = part.workspace.table(part.name, "media", "0000") if damaged == "table" else tar_of(part)
    path.write_bytes(b"PAR1 no more")
    part.workspace.clear_slice_stamp(part.name, "media", "0000")
    fetch_part(part.corpus, part.workspace, part.name)
    assert assert_whole(part) == 1
    assert web.hits["/jpg/1"] == 2


def test_other_settings_fetch_anew_and_a_return_to_the_old_ones_too(web, handmade):
    part = handmade([{"url": web.url("/jpg/1")}])
    for size in (256, 64, 256):
        part.with_download(image_size=size)
        fetch_part(part.corpus, part.workspace, part.name)
        assert assert_whole(part) == 1
        assert records(part)[0]["height"] == size
    part.with_download(threads=3, timeout_s=2.0, retries=1)
    fetch_part(part.corpus, part.workspace, part.name)
    assert web.hits["/jpg/1"] == 3


def test_two_workspaces_hold_the_same_bytes(tmp_path_factory, handmade, web):
    from tests.support.handmade import HandmadePart

    rows = [{"url": web.url(f"/jpg/{number}")} for number in range(25)]
    parts = [HandmadePart(tmp_path_factory.mktemp("ws"), [rows], threads=threads) for threads in (1, 16)]
    for part in parts:
        fetch_part(part.corpus, part.workspace, part.name)
    tars = [tar_of(part).read_bytes() for part in parts]
    stamps = [part.workspace.part_stamp(part.name, "media") for part in parts]
    assert tars[0] == tars[1]
    assert stamps[0].digest == stamps[1].digest


def test_a_part_that_gave_too_little_is_not_accepted(web, handmade):
    part = handmade(
        [{"url": web.url(f"/status/404?{n}")} for n in range(9)] + [{"url": web.url("/jpg/1")}], min_success_share=0.2
    )
    fetch_part(part.corpus, part.workspace, part.name)
    stamp = part.workspace.part_stamp(part.name, "media")
    assert stamp is not None
    assert not stamp.accepted
    assert stamp.reason == "media: success share 0.100 (1 of 10) is under download.min_success_share (0.2)"


def test_bad_rows_do_not_count_against_acceptance(web, handmade):
    bad = [{"url": None, "problem": "no_url", "caption": f"{n}"} for n in range(9)]
    part = handmade([*bad, {"url": web.url("/jpg/1")}], min_success_share=0.9)
    fetch_part(part.corpus, part.workspace, part.name)
    stamp = part.workspace.part_stamp(part.name, "media")
    assert stamp is not None
    assert stamp.accepted


def test_an_empty_slice_is_a_whole_one(handmade):
    part = handmade([])
    report = fetch_part(part.corpus, part.workspace, part.name)
    assert assert_whole(part) == 0
    assert report.counts["rows"] == 0


def test_a_host_gets_no_more_connections_than_per_host(web, handmade):
    part = handmade([{"url": web.url(f"/pause/4?{n}")} for n in range(16)], threads=16, per_host=3)
    fetch_part(part.corpus, part.workspace, part.name)
    assert web.hits["/pause/4"] == 16
    assert 2 <= web.most_paused <= 3


def test_a_dead_host_is_left_alone_until_the_next_run(web, handmade, monkeypatch):
    with socket.create_server(("127.0.0.3", 0)) as closed:
        port = closed.getsockname()[1]
    asked = []
    fetch_image = image_rows.fetch_image
    monkeypatch.setattr(
        image_rows, "fetch_image", lambda url, download: asked.append(url) or fetch_image(url, download)
    )
    dead = [{"url": f"http://127.0.0.3:{port}/{n}"} for n in range(200)]
    part = handmade([*dead, *({"url": web.url(f"/jpg/{n}")} for n in range(5))], min_success_share=0)
    report = fetch_part(part.corpus, part.workspace, part.name)
    assert report.counts["success"] == 5
    assert report.reasons["connection_refused"] + report.reasons["host_down"] == 200
    assert image_rows.HOST_DOWN_AFTER <= report.reasons["connection_refused"] <= image_rows.HOST_DOWN_AFTER + 8
    assert len(asked) == 5 + report.reasons["connection_refused"]
    assert all(record["next_retry_at"] for record in records(part) if record["error"])


def test_slices_run_in_processes_too(web, handmade):
    part = handmade(*([{"url": web.url(f"/jpg/{10 * s + n}")} for n in range(3)] for s in range(2)))
    part.corpus = part.corpus.model_copy(update={"engine": part.corpus.engine.model_copy(update={"workers": 2})})
    report = fetch_part(part.corpus, part.workspace, part.name)
    assert report.slices_done == 2
    assert assert_whole(part, "0000") + assert_whole(part, "0001") == 6


def test_rows_must_be_there_first(handmade):
    part = handmade([])
    part.workspace.clear_part_stamp(part.name, "rows")
    with pytest.raises(DataError, match="materialise source_rows"):
        fetch_part(part.corpus, part.workspace, part.name)


INTERRUPTED = """
import sys, threading, time, os, signal
from mmdata.config.load import parse_corpus
from mmdata.download import images
from mmdata.download.stage import fetch_part
from mmdata.workspace.layout import Workspace
corpus = parse_corpus({{"workspace": {workspace!r}, "sources": [{{"name": "w", "kind": "laion", "files": "x"}}],
    "download": {{"allow_hosts": ["127.0.0.0/8"], "timeout_s": 50, "deadline_s": 50}}}})
images.load_img2dataset(corpus.download)
print("ready", flush=True)
fetch_part(corpus, Workspace({workspace!r}), "w-000000")
"""


def test_an_interrupt_is_not_kept_waiting_by_a_silent_server(web: HostileServer, handmade):
    part = handmade([{"url": web.url(f"/silent?{n}")} for n in range(20)])
    script = INTERRUPTED.format(workspace=part.corpus.workspace)
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        for _ in range(100):
            if web.hits["/silent"]:
                break
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) != 0
    assert not part.workspace.table(part.name, "media", "0000").exists()


def test_a_retry_makes_a_new_tar_and_the_old_one_stays_for_those_who_read_it(web, handmade):
    part = handmade([{"url": web.url("/jpg/1")}, {"url": web.url("/busy/40")}], retry_after_s=0.001)
    fetch_part(part.corpus, part.workspace, part.name)
    old = tar_of(part)
    content = old.read_bytes()
    web.files["/busy/40"] = answer(jpeg(40))
    time.sleep(0.05)
    fetch_part(part.corpus, part.workspace, part.name)
    assert tar_of(part) != old
    assert old.read_bytes() == content
    fetch_part(part.corpus, part.workspace, part.name)
    assert [path.name for path in old.parent.glob("*.tar")] == [tar_of(part).name], "the next run clears up"


def test_a_corrected_hash_fetches_the_picture(web, handmade):
    body = jpeg(1)
    part = handmade([{"url": web.url("/jpg/1"), "expected_sha256": "0" * 64}])
    fetch_part(part.corpus, part.workspace, part.name)
    assert records(part)[0]["error"] == "hash_mismatch"
    table = read_table(part.workspace.table(part.name, "rows", "0000"))
    correct = pa.array([hashlib.sha256(body).hexdigest()], table.schema.field("expected_sha256").type)
    column = table.schema.get_field_index("expected_sha256")
    stamp = part_run.publish_slice(
        part.workspace,
        part.name,
        "rows",
        "0000",
        "corrected",
        part_run.SliceResult(table.set_column(column, table.schema.field(column), correct)),
    )
    part_run.stamp_part(part.workspace, part.name, "rows", "corrected", {"0000": stamp}, None)
    fetch_part(part.corpus, part.workspace, part.name)
    assert assert_whole(part) == 1


def test_a_host_that_was_left_alone_costs_its_urls_no_attempt(web, handmade, monkeypatch):
    monkeypatch.setattr(image_rows, "HOST_DOWN_AFTER", 2)
    part = handmade([{"url": f"http://127.0.0.1:9/{n}"} for n in range(20)], retries=0, threads=1)
    fetch_part(part.corpus, part.workspace, part.name)
    tries = {record["error"]: record["attempts"] for record in records(part)}
    assert tries["host_down"] == 0
    assert max(tries.values()) == 1
