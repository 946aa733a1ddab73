"""The plan of the next build foresees what the build then does, and changes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmdata.errors import UserError
from mmdata.releases.draft import find_draft
from tests.inspect.conftest import SELECT, Nightly, every_file, stages


def test_before_the_first_build_everything_is_new_and_nothing_is_written(nightly: Nightly) -> None:
    plan = nightly.plan()
    assert [(Path(file.path).name, file.what, file.rows) for file in plan.files] == [
        ("a.parquet", "new", 40),
        ("b.parquet", "new", 20),
    ]
    whole = {name: [(stage, slices, rows) for stage in ("rows", "media", "features")]
             for name, slices, rows in (("web-000000", 4, 40), ("web-000001", 2, 20))}  # fmt: skip
    assert stages(plan) == whole
    assert plan.work[0].stages[0].why == "the part is new"
    assert (plan.forecast.verdict, plan.forecast.why) == ("new", ("there is no release yet",))
    assert not (nightly.folder / "workspace").exists()


def test_nothing_new_is_no_work_and_the_same_release(built: Nightly) -> None:
    first = built.latest
    before = every_file(built)
    plan = built.plan()
    assert (plan.files, plan.work, plan.removed) == ([], [], [])
    assert (plan.forecast.verdict, plan.forecast.release_id) == ("stands", first)
    assert every_file(built) == before
    assert built.refresh() == first
    assert built.ran == []
    assert every_file(built) == before


def test_a_new_file_is_work_for_its_part_alone(built: Nightly) -> None:
    first = built.latest
    built.write("c.parquet", range(60, 75))
    plan = built.plan()
    assert [(file.what, file.rows) for file in plan.files] == [("new", 15)]
    assert stages(plan) == {"web-000002": [("rows", 2, 15), ("media", 2, 15), ("features", 2, 15)]}
    assert plan.forecast.verdict == "new"
    assert plan.forecast.why == ("1 parts are not in it: web-000002",)
    assert built.refresh() != first
    assert [(part, stage) for part, stage, _ in built.ran] == [("web-000002", s) for s in ("rows", "media", "features")]


def test_a_source_taken_out_of_the_config_leaves_with_its_parts(built: Nightly) -> None:
    built.source = {"name": "other"}
    plan = built.plan()
    assert plan.removed == ["web-000000", "web-000001"]
    assert {work.part.name for work in plan.work} == {"other-000000", "other-000001"}


def test_the_fast_plan_reads_stamps_alone(built: Nightly, monkeypatch: pytest.MonkeyPatch) -> None:
    built.write("c.parquet", range(60, 75))
    built.sections = {"download": {"image_size": 64}}

    def never(*_: object) -> None:
        raise AssertionError("it was read")

    monkeypatch.setattr("mmdata.inspect.next_build.look_at_sources", never)
    monkeypatch.setattr("mmdata.workspace.layout.Workspace.slice_stamp", never)
    monkeypatch.setattr("mmdata.inspect.next_parts.read_table", never)
    plan = built.plan(fast=True)
    assert stages(plan) == {
        "web-000000": [("media", 4, 40), ("features", 4, 40)],
        "web-000001": [("media", 2, 20), ("features", 2, 20)],
    }


def test_a_pattern_without_files_is_a_mistake_in_the_config(nightly: Nightly) -> None:
    nightly.source = {"files": str(nightly.folder / "nowhere/*")}
    with pytest.raises(UserError, match="no file matches"):
        nightly.plan()


def test_looking_makes_no_index_of_captions(nightly: Nightly) -> None:
    nightly.write("a.parquet", range(3))
    videos = nightly.folder / "howto.csv"
    videos.write_text("video_id,category_1,category_2,rank,task_id\nabcdefghijk,Food,Cooking,1,7\n")
    captions = nightly.folder / "raw_caption.json"
    captions.write_text(json.dumps({"abcdefghijk": {"start": [0.0], "end": [12.0], "text": ["cut the onion"]}}))
    nightly.source = {"kind": "howto100m", "files": str(videos), "captions": str(captions)}
    assert nightly.plan().work[0].stages[0].rows == 1
    assert not (nightly.folder / "workspace").exists()


def test_an_opt_out_list_that_grew_is_told_and_not_taken_over(built: Nightly) -> None:
    first = built.latest
    named = built.folder / "optout.txt"
    named.write_text("http://example.com/3.jpg\n")
    built.sections = {"optout": [str(named)]}
    before = every_file(built)
    plan = built.plan()
    assert plan.opt_out_changes
    assert plan.forecast.verdict == "depends"
    assert every_file(built) == before
    assert built.refresh() != first
    assert not built.plan().opt_out_changes


def test_the_plan_tells_what_another_balance_costs_before_it_is_done(built: Nightly) -> None:
    built.sections = {"select": {**SELECT, "balance": {"mix": {"image+text": 1.0}, "size": 20}}}
    plan = built.plan()
    assert plan.balance is not None
    assert plan.balance.line() == "balance would keep 20 of 60 samples (33.3%): image+text 60 -> 20"
    assert "drops 40 of 60 samples" in plan.balance.cut[0]
    assert plan.to_json()["balance"]["signatures"] == {"image+text": (60, 20, 20)}
    assert built.plan(fast=True).balance is None
    built.refresh()
    assert find_draft(built.workspace).counts["kept"] == 20  # type: ignore[union-attr]
