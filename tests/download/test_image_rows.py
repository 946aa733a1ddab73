"""The images of a slice: one fetch a URL, polite to hosts, and only with the expected hash."""

from __future__ import annotations

import hashlib
import socket
import time

import pyarrow as pa

from mmdata.config import Privacy
from mmdata.download import image_rows
from mmdata.download.stage import fetch_part
from mmdata.engine import part_run
from mmdata.storage.tables import read_table
from mmdata.web.host_pauses import BLOCKS_BEFORE_PAUSE
from mmdata.workspace.paused_hosts import read_pauses
from tests.support.hostile_server import answer, jpeg
from tests.support.media_parts import assert_whole, records


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


def test_the_md5_of_the_source_is_compared_as_the_sha256_is(web, handmade):
    right, wrong = (hashlib.md5(body, usedforsecurity=False).hexdigest() for body in (jpeg(1), b"other"))
    rows = [
        {"url": web.url("/jpg/1"), "caption": "right", "extra": f'{{"expected_md5":"{right}"}}'},
        {"url": web.url("/jpg/1"), "caption": "wrong", "extra": f'{{"expected_md5":"{wrong}"}}'},
        {"url": web.url("/jpg/2"), "caption": "wrong", "extra": f'{{"expected_md5":"{right}"}}'},
    ]
    part = handmade(rows)
    for _ in range(2):
        report = fetch_part(part.corpus, part.workspace, part.name)
        assert assert_whole(part) == 1
        assert dict(report.reasons) == {"hash_mismatch": 2}
    assert web.hits == {"/jpg/1": 1, "/jpg/2": 1}
    details = {record["detail"] for record in records(part) if record["error"]}
    assert f"expected md5 {wrong}, got {right}" in details


def test_faces_that_the_source_lists_are_blurred(web, handmade, monkeypatch):
    seen = {}

    def remember(pixels, min_score, listed):
        seen[pixels.shape] = listed
        return pixels, len(listed)

    monkeypatch.setattr("mmdata.media.faces.blur_faces", remember)
    rows = [
        {"url": web.url("/jpg/1"), "caption": "a", "extra": '{"face_bboxes":[[0.1,0.2,0.3,0.4]]}'},
        {"url": web.url("/jpg/1"), "caption": "b", "extra": '{"face_bboxes":[[0.5,0.5,0.6,0.6]]}'},
    ]
    part = handmade(rows)
    corpus = part.corpus.model_copy(update={"privacy": Privacy(blur_faces=True)})
    fetch_part(corpus, part.workspace, part.name)
    assert [record["faces"] for record in records(part)] == [2, 2]
    assert [sorted(boxes) for boxes in seen.values()] == [[(0.1, 0.2, 0.3, 0.4), (0.5, 0.5, 0.6, 0.6)]]


def test_a_host_gets_no_more_connections_than_per_host(web, handmade):
    part = handmade([{"url": web.url(f"/pause/4?{n}")} for n in range(16)], threads=16, per_host=3)
    fetch_part(part.corpus, part.workspace, part.name)
    assert web.hits["/pause/4"] == 16
    assert 2 <= web.most_paused <= 3


def test_a_dead_host_is_left_alone_until_the_next_run(web, handmade, monkeypatch):
    with socket.create_server(("127.0.0.3", 0)) as closed:
        port = closed.getsockname()[1]
    fetched_urls = []
    fetch_image = image_rows.fetch_image
    monkeypatch.setattr(
        image_rows, "fetch_image", lambda url, download: fetched_urls.append(url) or fetch_image(url, download)
    )
    dead = [{"url": f"http://127.0.0.3:{port}/{n}"} for n in range(200)]
    part = handmade([*dead, *({"url": web.url(f"/jpg/{n}")} for n in range(5))], min_success_share=0)
    report = fetch_part(part.corpus, part.workspace, part.name)
    assert report.counts["success"] == 5
    assert report.reasons["connection_refused"] + report.reasons["host_down"] == 200
    assert image_rows.HOST_DOWN_AFTER <= report.reasons["connection_refused"] <= image_rows.HOST_DOWN_AFTER + 8
    assert len(fetched_urls) == 5 + report.reasons["connection_refused"]
    assert all(record["next_retry_at"] for record in records(part) if record["error"])


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


def test_skipped_urls_of_a_host_that_is_down_count_no_attempt(web, handmade, monkeypatch):
    monkeypatch.setattr(image_rows, "HOST_DOWN_AFTER", 2)
    part = handmade([{"url": f"http://127.0.0.1:9/{n}"} for n in range(20)], retries=0, threads=1)
    fetch_part(part.corpus, part.workspace, part.name)
    tries = {record["error"]: record["attempts"] for record in records(part)}
    assert tries["host_down"] == 0
    assert max(tries.values()) == 1


def test_a_host_that_blocks_in_mid_run_is_left_alone_and_its_rows_are_due_again(web, handmade, monkeypatch):
    """One picture in ten comes, the server answers 429 to all others, then it calms down."""
    blocked = answer(b"", "429 Too Many Requests")
    served = {f"/p/{number}": answer(jpeg(number)) for number in range(400)}
    first_part = dict(list(served.items())[:40])
    web.files |= served | {path: blocked for path in served if path not in first_part}
    given = {"min_success_share": 0, "host_pause_s": 1.5, "retry_after_s": 0.001, "threads": 4}
    part = handmade([{"url": web.url(path)} for path in served], [{"url": web.url("/q/1")}], **given)
    report = fetch_part(part.corpus, part.workspace, part.name)
    asked = report.reasons["http_429"]
    assert BLOCKS_BEFORE_PAUSE <= asked <= BLOCKS_BEFORE_PAUSE + 40
    assert report.reasons["host_blocked"] > 300
    assert web.hits["/q/1"] == 0, "the next slice knows of the block, too"
    assert all(record["next_retry_at"] for record in records(part) if record["error"])
    assert {record["attempts"] for record in records(part) if record["error"] == "host_blocked"} == {0}
    (pause,) = read_pauses(part.workspace).values()
    assert (pause.reason, pause.host) == ("http_429", f"{web.address}:{web.port}")
    assert report.tables["hosts left alone"][0]["host"] == pause.host

    sent = web.hits.total()
    time.sleep(1.6)
    fetch_part(part.corpus, part.workspace, part.name)
    assert read_pauses(part.workspace)[pause.host].times == 2
    assert web.hits.total() - sent == 1, "one URL finds out that the host still blocks"

    web.files |= served
    time.sleep(3.2)
    before = {path for path in served if web.files[path] and web.hits[path]}
    fetch_part(part.corpus, part.workspace, part.name)
    assert read_pauses(part.workspace) == {}
    assert assert_whole(part) >= 400
    assert all(web.hits[path] == 1 for path in first_part if path in before)
