"""A source's filter decides before a byte is fetched; a changed one fetches only what it lets in anew."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime

import pytest

from mmdata.download.stage import fetch_part
from mmdata.engine import freshness, stage_fingerprints
from mmdata.inspect.next_parts import part_work
from mmdata.storage.tables import read_table
from tests.support.media_parts import by_url


@pytest.fixture
def part(web, handmade):
    rows = [{"url": web.url(f"/jpg/{n}"), "extra": json.dumps({"similarity": n / 10})} for n in range(10)]
    return handmade(rows[:5], rows[5:])


def fetched(web) -> set[int]:
    asked = {int(path.rpartition("/")[2]) for path, count in web.hits.items() if path.startswith("/jpg/") and count}
    assert all(count == 1 for path, count in web.hits.items() if path.startswith("/jpg/"))
    return asked


def media(part) -> dict:
    return by_url(part, "0000") | by_url(part, "0001")


def errors(part) -> Counter:
    return Counter((record["status"], record["error"]) for record in media(part).values())


def test_loosened_and_narrowed_rules_fetch_only_what_they_let_in(part, web) -> None:
    part.with_filter(min={"similarity": 0.75})
    report = fetch_part(part.corpus, part.workspace, part.name)
    assert fetched(web) == {8, 9}
    assert dict(report.counts) == {"rows": 10, "fetchable": 2, "success": 2, "refused": 8}
    assert dict(report.reasons) == {"rule:min.similarity": 8}
    assert fetch_part(part.corpus, part.workspace, part.name).slices_reused == 2

    part.with_filter(min={"similarity": 0.55})
    plan = freshness.plan_part(part.corpus, part.workspace, part.workspace.part(part.name), with_retries=False)
    assert plan.stale == ("media", "features")
    work = part_work(part.corpus, part.workspace, plan, plan.part, datetime.now(UTC)).stages[0]
    assert work.why == (
        "the source's filter has changed; the source's filter lets in 4 of 10 rows (rule:min.similarity 6)"
    )
    fast = part_work(part.corpus, part.workspace, plan, plan.part, datetime.now(UTC), fast=True).stages[0]
    assert fast.why.endswith("; which rows the source's filter lets in is not counted in a fast plan")
    fetch_part(part.corpus, part.workspace, part.name)
    assert fetched(web) == {6, 7, 8, 9}

    part.with_filter(min={"similarity": 0.85})
    before = {url: (record["sha256"], record["length"]) for url, record in media(part).items()}
    report = fetch_part(part.corpus, part.workspace, part.name)
    assert fetched(web) == {6, 7, 8, 9}
    assert errors(part) == {
        ("success", None): 1,
        ("success", "rule:min.similarity"): 3,
        ("refused", "rule:min.similarity"): 6,
    }
    assert {url: (record["sha256"], record["length"]) for url, record in media(part).items()} == before

    part.with_filter()
    fetch_part(part.corpus, part.workspace, part.name)
    assert fetched(web) == set(range(10))
    assert errors(part) == {("success", None): 10}


def test_the_rows_do_not_change_with_the_rules(part, web) -> None:
    def state() -> tuple:
        settings = stage_fingerprints.stage_settings(part.corpus, part.workspace.part(part.name), "rows")
        return settings, read_table(part.workspace.table(part.name, "rows", "0000"))

    before = state()
    part.with_filter(min={"similarity": 0.75})
    fetch_part(part.corpus, part.workspace, part.name)
    assert state() == before


def test_a_url_of_two_rows_is_fetched_if_one_is_let_in(web, handmade) -> None:
    rows = [{"url": web.url("/jpg/1"), "caption": c, "extra": json.dumps({"s": s})} for c, s in (("a", 0), ("b", 1))]
    part = handmade(rows)
    part.with_filter(min={"s": 0.5})
    report = fetch_part(part.corpus, part.workspace, part.name)
    assert dict(report.counts) == {"rows": 2, "fetchable": 1, "success": 1, "refused": 1}
    part.with_filter(max={"s": 0.5})
    fetch_part(part.corpus, part.workspace, part.name)
    records = read_table(part.workspace.table(part.name, "media", "0000")).to_pylist()
    assert sorted((r["status"], r["error"] or "") for r in records) == [("success", ""), ("success", "rule:max.s")]
    assert web.hits["/jpg/1"] <= 2  # the picture of a row that was never let in belongs to another record


def test_texts_that_a_rule_holds_back_never_enter(handmade) -> None:
    rows = [{"url": None, "caption": f"text {n}", "kind": "text", "extra": json.dumps({"score": n})} for n in range(4)]
    part = handmade(rows, source={"kind": "text"})
    part.with_filter(min={"score": 2})
    report = fetch_part(part.corpus, part.workspace, part.name)
    assert dict(report.reasons) == {"rule:min.score": 2}
    part.with_filter(min={"score": 1})
    assert dict(fetch_part(part.corpus, part.workspace, part.name).reasons) == {"rule:min.score": 1}
