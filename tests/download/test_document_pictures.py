"""The pictures of documents: fetched once a URL, kept in their places, and fetched again while they are missing."""

from __future__ import annotations

import hashlib

from mmdata.config import Privacy
from mmdata.download.document_pictures import document_sha256
from mmdata.download.media_counts import failed_urls
from mmdata.download.stage import fetch_part
from mmdata.optout.hashes import opt_out_of
from mmdata.optout.selectors import selector_of
from mmdata.storage.tables import read_table
from tests.support.document_rows import document, numbers_shown
from tests.support.hostile_server import answer, jpeg
from tests.support.media_parts import members, outcomes, records

DOCUMENTS = {"kind": "documents"}


def fetch(part):
    return fetch_part(part.corpus, part.workspace, part.name)


def test_pictures_lie_in_their_places_and_a_shared_url_is_fetched_once(web, handmade):
    urls = [web.url(f"/jpg/{number}") for number in range(6)]
    part = handmade(
        [
            document(["a", "b", "c", ""], [urls[3], urls[1], urls[3]]),
            document(["", "d"], [urls[1]], page="http://127.0.0.9/page"),
            document(["x"] * 7, urls),
        ],
        source=DOCUMENTS,
    )
    report = fetch(part)
    assert report.counts["success"] == 3 and report.counts["pictures"] == 10
    assert report.counts["pictures_missing"] == 0
    assert web.hits == {f"/jpg/{number}": 1 for number in range(6)}
    first, second, third = records(part)
    assert [numbers_shown(members(part, record), range(6)) for record in (first, second, third)] == [
        [3, 1, 3],
        [1],
        [0, 1, 2, 3, 4, 5],
    ]
    assert list(members(part, first)) == ["000.jpg", "001.jpg", "002.jpg"]
    assert first["bytes"] == 2 * len(jpeg(3)) + len(jpeg(1))
    sha256s = [hashlib.sha256(jpeg(number)).hexdigest() for number in (3, 1, 3)]
    assert first["sha256"] == document_sha256(dict(enumerate(sha256s)))
    assert [picture["sha256"] for picture in first["pictures"]] == sha256s


def test_a_picture_that_fails_leaves_its_place_and_the_document_stays(web, handmade):
    good, gone = web.url("/jpg/1"), web.url("/status/404")
    part = handmade(
        [document(["a", "b", "c"], [gone, good]), document(["a", "b", "c"], [gone, web.url("/status/403")])],
        source=DOCUMENTS,
        min_success_share=0,
    )
    report = fetch(part)
    kept, lost = records(part)
    assert (kept["status"], kept["error"], list(members(part, kept))) == ("success", None, ["001.jpg"])
    assert kept["detail"] == "1 of 2 pictures are missing: http_404 1"
    assert (lost["status"], lost["error"]) == ("failed_to_download", "http_404")
    assert lost["detail"] == "2 of 2 pictures are missing: http_403 1, http_404 1"
    assert (report.counts["pictures"], report.counts["pictures_missing"]) == (4, 3)
    assert [picture["error"] for picture in kept["pictures"]] == ["http_404", None]
    assert sorted(failed_urls(part.workspace, part.name, "0000")) == sorted(
        [(gone, "http_404"), (gone, "http_404"), (web.url("/status/403"), "http_403")]
    )
    assert {row["host"] for row in report.tables["failures by host"]} == {f"127.0.0.1:{web.port}"}


def test_only_missing_pictures_that_are_due_are_fetched_again(web, handmade):
    web.files["/late"] = answer(b"no", "503 Busy")
    urls = [web.url("/jpg/1"), web.url("/late"), web.url("/status/404"), web.url("/jpg/2")]
    part = handmade([document(["", "one", "two", "three", "four"], urls)], source=DOCUMENTS, retry_after_s=0.001)
    fetch(part)
    (record,) = records(part)
    assert (record["status"], list(members(part, record))) == ("success", ["000.jpg", "003.jpg"])
    assert record["next_retry_at"] is not None
    before, stored = web.hits.copy(), members(part, record)
    web.files["/late"] = answer(jpeg(5))
    fetch(part)
    (record,) = records(part)
    assert web.hits - before == {"/late": 1}
    assert numbers_shown(members(part, record), range(6)) == [1, 5, 2]
    assert members(part, record)["003.jpg"] == stored["003.jpg"]
    assert record["next_retry_at"] is None
    assert record["detail"] == "1 of 4 pictures are missing: http_404 1"
    hits = web.hits.copy()
    fetch(part)
    assert web.hits == hits


def test_a_document_with_an_opted_out_picture_goes_whole(web, handmade):
    part = handmade(
        [document(["a", "b", ""], [web.url("/jpg/1"), web.url("/jpg/2")]), document(["a", ""], [web.url("/jpg/3")])],
        source=DOCUMENTS,
    )
    fetch(part)
    rows = read_table(part.workspace.table(part.name, "rows", "0000"))
    for selector in (selector_of("url", web.url("/jpg/2")), selector_of("domain", "127.0.0.1")):
        covered = opt_out_of([selector]).covers_rows(rows)
        assert covered.sum() == (1 if selector.kind == "url" else 2)


def test_robots_and_privacy_hold_for_each_picture(web, handmade):
    web.files["/no"] = answer(jpeg(1), X_Robots_Tag="noai")
    part = handmade(
        [document(["a", "b", ""], [web.url("/no"), web.url("/jpg/2")]), document(["a", ""], [web.url("/no")])],
        source=DOCUMENTS,
        sections={"privacy": Privacy(blur_faces=True).model_dump()},
    )
    fetch(part)
    assert outcomes(part) == ["success", "robots"]
    kept, refused = records(part)
    assert (list(members(part, kept)), kept["faces"], refused["status"]) == (["001.jpg"], 0, "refused")
