"""Staleness, read from the stamps."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mmdata.config import Corpus, Select
from mmdata.config.load import parse_corpus
from mmdata.engine.deciding_settings import deciding_settings
from mmdata.engine.freshness import plan_part, plan_parts, releasable_parts
from mmdata.engine.part_run import stamp_part
from mmdata.engine.stage_fingerprints import features_input, rows_input, stage_settings
from mmdata.fingerprint import fingerprint
from mmdata.workspace.layout import Catalog, Part, SliceStamp, Workspace

PART = Part("web-000000", "web", "in.parquet", 0, 10, "content")
NOW = datetime(2026, 1, 2, tzinfo=UTC)


def corpus_of(**sections: dict) -> Corpus:
    source = {"name": "web", "kind": "laion", "files": "inbox/*.parquet"}
    return parse_corpus({"workspace": "w", "sources": [source], **sections})


def finish(
    corpus: Corpus,
    workspace: Workspace,
    retry: str | None = None,
    refuse: str | None = None,
    counts: dict[str, int] | None = None,
    reasons: dict[str, int] | None = None,
) -> None:
    """Stamp all the stages of PART as the stages would."""

    def stamp(stage: str, upstream: str, next_retry_at: str | None = None, reason: str | None = None) -> str:
        expected = fingerprint(stage_settings(corpus, PART, stage), upstream)
        numbers = {"counts": counts or {}, "reasons": reasons or {}, "next_retry_at": next_retry_at}
        slices = {"0000": SliceStamp("f", f"digest of {stage}", 10, **numbers)}
        deciding = deciding_settings(corpus, PART.source)
        return stamp_part(workspace, PART.name, stage, expected, slices, reason, deciding=deciding).digest

    rows = stamp("rows", rows_input(PART))
    media = stamp("media", rows, retry, refuse)
    stamp("features", features_input(rows, media))


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = Workspace(str(tmp_path))
    workspace.write_catalog(Catalog(parts={PART.name: PART}))
    return workspace


def test_a_new_part_needs_everything(workspace: Workspace) -> None:
    plan = plan_part(corpus_of(), workspace, PART)
    assert plan.stale == ("rows", "media", "features")
    assert "rows: not finished" in plan.why
    assert releasable_parts(corpus_of(), workspace) == ([], {PART.name: plan.why})


def test_a_finished_part_needs_nothing(workspace: Workspace) -> None:
    finish(corpus_of(), workspace)
    assert [plan.stale for plan in plan_parts(corpus_of(), workspace)] == [()]
    assert releasable_parts(corpus_of(), workspace) == ([PART], {})


@pytest.mark.parametrize(
    ("sections", "stale"),
    [
        ({"score": {"model": "ViT-L-14"}}, ("features",)),
        ({"score": {"batch_size": 1, "threads": 3}}, ()),
        ({"download": {"image_size": 512}}, ("media", "features")),
        ({"download": {"threads": 1, "retries": 9, "deadline_s": 1}}, ()),
        ({"select": {"filter": {"min_clip_score": 0.5}}}, ()),
    ],
)
def test_a_changed_setting_makes_stale_what_it_changes(workspace: Workspace, sections: dict, stale: tuple) -> None:
    finish(corpus_of(), workspace)
    assert plan_part(corpus_of(**sections), workspace, PART).stale == stale


def test_a_changed_file_makes_its_part_stale_and_gives_a_new_fingerprint(workspace: Workspace) -> None:
    finish(corpus_of(), workspace)
    changed = Part(PART.name, PART.source, PART.path, 0, 10, "other content")
    plan = plan_part(corpus_of(), workspace, changed)
    assert plan.stale == ("rows", "media", "features")
    assert plan.fingerprint != plan_part(corpus_of(), workspace, PART).fingerprint


def test_retries_make_a_part_stale_when_they_fall_due_and_never_hold_it_back(workspace: Workspace) -> None:
    finish(corpus_of(), workspace, retry=NOW.isoformat())
    assert plan_part(corpus_of(), workspace, PART, NOW - timedelta(seconds=1)).stale == ()
    assert plan_part(corpus_of(), workspace, PART, NOW).stale == ("media", "features")
    assert releasable_parts(corpus_of(), workspace)[0] == [PART]


def test_a_mended_setting_makes_a_part_with_such_failures_stale_and_never_holds_it_back(workspace: Workspace) -> None:
    mended = corpus_of(download={"user_agent": "Mozilla/5.0"})
    finish(corpus_of(), workspace, reasons={"http_404": 9})
    assert plan_part(mended, workspace, PART).stale == ()
    finish(corpus_of(), workspace, reasons={"http_403": 3, "http_404": 9})
    plan = plan_part(mended, workspace, PART)
    assert plan.stale == ("media", "features")
    assert plan.why.startswith("media: retries due: 3 rows (http_403 3), because of download.user_agent: ")
    assert plan.fingerprint != plan_part(corpus_of(), workspace, PART).fingerprint
    assert releasable_parts(mended, workspace)[0] == [PART]


def test_a_part_that_was_not_accepted_is_held_back_with_its_reason(workspace: Workspace) -> None:
    finish(corpus_of(), workspace, refuse="success share 0.02 is under 0.1")
    assert releasable_parts(corpus_of(), workspace) == ([], {PART.name: "success share 0.02 is under 0.1"})


def test_a_source_taken_out_of_the_config_leaves_with_its_parts(workspace: Workspace) -> None:
    finish(corpus_of(), workspace)
    other = parse_corpus({"workspace": "w", "sources": [{"name": "other", "kind": "laion", "files": "x"}]})
    assert list(plan_parts(other, workspace)) == []


def test_the_success_share_is_judged_as_the_corpus_asks_now(workspace: Workspace) -> None:
    counts = {"fetchable": 100, "success": 5}
    finish(corpus_of(), workspace, refuse="success share 0.05 is under 0.1", counts=counts)
    assert "success share 0.050 (5 of 100)" in releasable_parts(corpus_of(), workspace)[1][PART.name]
    assert releasable_parts(corpus_of(download={"min_success_share": 0.01}), workspace) == ([PART], {})


def test_the_clips_of_one_file_do_not_hold_a_part_back(workspace: Workspace) -> None:
    counts = {"fetchable": 3_340, "success": 11, "further_rows": 3_328}
    finish(corpus_of(), workspace, counts=counts)
    assert releasable_parts(corpus_of(download={"min_success_share": 0.9}), workspace) == ([PART], {})
    refused = releasable_parts(corpus_of(download={"min_success_share": 0.95}), workspace)[1]
    assert "success share 0.917 (11 of 12)" in refused[PART.name]


def test_missing_text_embeddings_make_features_stale_where_the_selection_needs_them(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish(corpus_of(), workspace, counts={"scored": 1_500})
    assert plan_part(corpus_of(), workspace, PART).stale == ()
    monkeypatch.setattr(Select, "needs_text_embeddings", property(lambda self: True))
    plan = plan_part(corpus_of(), workspace, PART)
    assert plan.stale == ("features",)
    assert plan.why == "features: 1,500 scored samples lack the text embedding that selection or instructions need"
    assert releasable_parts(corpus_of(), workspace) == ([], {PART.name: plan.why})
    finish(corpus_of(), workspace, counts={"scored": 1_500, "text_embedded": 1_500})
    assert plan_part(corpus_of(), workspace, PART).stale == ()


def test_the_number_format_makes_features_stale(workspace: Workspace) -> None:
    finish(corpus_of(), workspace)
    assert plan_part(corpus_of(score={"precision": "bf16"}), workspace, PART).stale == ("features",)
