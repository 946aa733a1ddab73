"""The media stage on real HTTP: one table and one tar a slice, resumed, retried, killed and repeated."""

from __future__ import annotations

import hashlib
import json
import time
from datetime import UTC, datetime, timedelta

import cv2
import numpy as np
import pytest

from mmdata.config.load import parse_corpus
from mmdata.download.stage import fetch_part
from mmdata.engine import deciding_settings, freshness, stage_fingerprints
from mmdata.errors import DataError
from mmdata.inspect.next_parts import part_work
from mmdata.sources.catalog import update_catalog
from mmdata.takedown.read_part import read_part
from mmdata.workspace.layout import Workspace
from tests.support.hostile_server import answer, jpeg
from tests.support.media_parts import assert_whole, by_url, records


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


def test_a_part_with_too_few_successes_is_not_accepted(web, handmade):
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


@pytest.mark.slow
def test_slices_run_in_processes_too(web, handmade):
    part = handmade(*([{"url": web.url(f"/jpg/{10 * s + n}")} for n in range(3)] for s in range(2)))
    part.corpus = part.corpus.model_copy(update={"engine": part.corpus.engine.model_copy(update={"workers": 2})})
    report = fetch_part(part.corpus, part.workspace, part.name)
    assert report.slices_done == 2
    assert assert_whole(part, "0000") + assert_whole(part, "0001") == 6


def test_rows_must_be_read_first(handmade):
    part = handmade([])
    part.workspace.clear_part_stamp(part.name, "rows")
    with pytest.raises(DataError, match="--redo w-000000:rows"):
        fetch_part(part.corpus, part.workspace, part.name)


def test_rows_that_are_read_again_by_newer_code_keep_their_pictures(web, tmp_path, monkeypatch):
    monkeypatch.setitem(stage_fingerprints.CODE_VERSIONS, "rows", 2)
    urls = [web.url(f"/jpg/{number}") for number in range(3)]
    path = tmp_path / "a.tsv"
    path.write_text("URL\tTEXT\n" + "".join(f"{url}\tcaption {n}\n" for n, url in enumerate(urls)))
    source = {"name": "web", "kind": "laion", "files": str(path)}
    download = {"allow_hosts": ["127.0.0.0/8"], "retries": 0}
    corpus = parse_corpus({"workspace": str(tmp_path / "w"), "sources": [source], "download": download})
    workspace = Workspace(corpus.workspace)
    for version in (2, 3):
        monkeypatch.setitem(stage_fingerprints.CODE_VERSIONS, "rows", version)
        update_catalog(corpus, workspace)
        (part,) = workspace.catalog().live_parts()
        assert "rows" in freshness.plan_part(corpus, workspace, part).stale
        read_part(corpus, workspace, part.name)
        assert ("media" in freshness.plan_part(corpus, workspace, part).stale) == (version == 2)
        fetch_part(corpus, workspace, part.name)
    path.write_text(path.read_text() + f"{web.url('/jpg/3')}\tone more\n")
    update_catalog(corpus, workspace)
    read_part(corpus, workspace, part.name)
    assert fetch_part(corpus, workspace, part.name).counts["success"] == 4
    assert {path: hits for path, hits in web.hits.items() if path.startswith("/jpg/")} == {
        f"/jpg/{n}": 1 for n in range(4)
    }


def plan(part):
    return freshness.plan_part(part.corpus, part.workspace, part.workspace.part(part.name))


def errors(part) -> list[str]:
    return [record["error"] or record["status"] for record in sorted(records(part), key=lambda r: r["uid"])]


def test_hosts_that_are_allowed_now_are_asked_and_what_they_refuse_is_not_asked_twice(web, handmade):
    part = handmade([{"url": web.url("/jpg/1")}, {"url": web.url("/status/404")}], allow_hosts=[], min_success_share=0)
    fetch_part(part.corpus, part.workspace, part.name)
    assert (errors(part), web.hits.total()) == (["private_address"] * 2, 0)
    assert plan(part).stale == ("features",)
    part.with_download(allow_hosts=["127.0.0.0/8"])
    why = plan(part).why
    assert plan(part).stale == ("media", "features")
    assert "2 rows (private_address 2), because of download.allow_hosts: [] -> " in why
    fetch_part(part.corpus, part.workspace, part.name)
    assert sorted(errors(part)) == ["http_404", "success"]
    fetch_part(part.corpus, part.workspace, part.name)
    assert web.hits == {"/jpg/1": 1, "/status/404": 1}


@pytest.mark.parametrize(
    ("path", "error", "narrow", "wide"),
    [
        ("/status/403", "http_403", {"user_agent": "mmdata"}, {"user_agent": "Mozilla/5.0"}),
        ("/jpg/7", "too_large", {"max_bytes": 2_000}, {"max_bytes": 3_000_000}),
        ("/large", "bomb", {"max_pixels": 100_000}, {"max_pixels": 1_000_000}),
        ("/tagged?tag=noai", "robots", {"respect_robots": True}, {"respect_robots": False}),
        ("/garbled", "not_an_image", {}, {}),
    ],
)
def test_a_mended_setting_asks_the_failed_rows_again_and_keeps_what_is_stored(
    web, handmade, monkeypatch, path, error, narrow, wide
):
    small = cv2.imencode(".jpg", np.full((20, 20, 3), 9, np.uint8))[1].tobytes()
    web.files |= {
        "/small": answer(small),
        "/large": answer(jpeg(3, 640, 480)),
        "/garbled": answer(b"\x00\x01 no picture"),
    }
    monkeypatch.setattr(deciding_settings, "READERS", 1)
    rows = [{"url": web.url("/small")}, {"url": web.url(path)}, {"url": web.url("/status/410")}]
    part = handmade(rows[:2], rows[2:], **narrow)
    fetch_part(part.corpus, part.workspace, part.name)
    assert sorted(errors(part)) == sorted(["success", error])
    hits = web.hits.copy()
    first = by_url(part)[web.url("/small")]
    part.with_download(**wide)
    monkeypatch.setattr(deciding_settings, "READERS", 2)
    assert plan(part).stale[0] == "media"
    entry = part.workspace.part(part.name)
    work = part_work(part.corpus, part.workspace, plan(part), entry, datetime.now(UTC)).stages[0]
    assert (work.rows, work.urls_due) == (1, 1), "the plan counts the rows that are fetched"
    report = fetch_part(part.corpus, part.workspace, part.name)
    name = path.partition("?")[0]
    assert (web.hits - hits) == {name: 1}
    assert by_url(part)[web.url("/small")]["fetched_at"] == first["fetched_at"]
    assert report.slices_done == (2 if error in ("too_large", "bomb", "robots") else 1)
    assert plan(part).stale == ("features",)
    again = fetch_part(part.corpus, part.workspace, part.name)
    assert (again.slices_done, web.hits - hits) == (0, {name: 1})


def test_a_killed_run_after_a_widened_limit_keeps_what_is_stored(web, handmade):
    part = handmade([{"url": web.url("/jpg/1")}, {"url": web.url("/short")}], [{"url": web.url("/jpg/2")}])
    fetch_part(part.corpus, part.workspace, part.name)
    part.with_download(max_bytes=30_000_000, max_pixels=200_000_000)
    part.workspace.clear_part_stamp(part.name, "media")
    fetch_part(part.corpus, part.workspace, part.name)
    assert (web.hits["/jpg/1"], web.hits["/jpg/2"]) == (1, 1)


def test_a_narrower_limit_fetches_everything_again(web, handmade):
    part = handmade([{"url": web.url("/jpg/1")}])
    for max_bytes, hits in ((20_000_000, 1), (30_000_000, 1), (25_000_000, 2)):
        part.with_download(max_bytes=max_bytes)
        fetch_part(part.corpus, part.workspace, part.name)
        assert web.hits["/jpg/1"] == hits


def test_stamps_of_before_ask_once_for_what_mmdata_could_not_read_then(web, handmade):
    web.files["/garbled"] = answer(b"\x00\x01 no picture")
    part = handmade([{"url": web.url("/jpg/1")}, {"url": web.url("/garbled")}, {"url": web.url("/status/404")}])
    fetch_part(part.corpus, part.workspace, part.name)
    as_before(part)
    for _ in range(2):
        fetch_part(part.corpus, part.workspace, part.name)
    assert web.hits == {"/jpg/1": 1, "/garbled": 2, "/status/404": 1}


def as_before(part) -> None:
    """Leave out of the stamps what version 0.1.0 did not write."""
    for path in part.workspace.part_dir(part.name).glob("**/*.json"):
        stamp = json.loads(path.read_text())
        stamp.pop("deciding", None)
        path.write_text(json.dumps(stamp))


def test_a_limit_that_is_raised_over_stamps_of_before_keeps_what_is_stored(web, handmade):
    small = cv2.imencode(".jpg", np.full((20, 20, 3), 9, np.uint8))[1].tobytes()
    web.files["/small"] = answer(small)
    part = handmade([{"url": web.url("/small")}, {"url": web.url("/jpg/1")}], max_bytes=2_000)
    fetch_part(part.corpus, part.workspace, part.name)
    as_before(part)
    part.with_download(max_bytes=3_000_000)
    fetch_part(part.corpus, part.workspace, part.name)
    assert sorted(errors(part)) == ["success", "success"]
    assert web.hits["/small"] == 1
