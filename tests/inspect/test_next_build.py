"""What `mmdata plan` foresees is what a build then does, and looking changes nothing."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from pathlib import Path

import pytest

from mmdata.errors import UserError
from mmdata.inspect.next_build import RefreshPlan
from mmdata.inspect.plan_text import as_markdown
from tests.inspect.conftest import NOW, Nightly


def stages(plan: RefreshPlan) -> dict[str, list[tuple[str, int, int]]]:
    """Part -> stage, slices, rows."""
    return {one.part.name: [(s.stage, s.slices, s.rows) for s in one.stages] for one in plan.work}


def every_file(nightly: Nightly) -> dict[str, int]:
    root = nightly.folder / "workspace"
    return {str(path): path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}


def test_before_the_first_build_everything_is_new_and_nothing_is_written(nightly: Nightly) -> None:
    plan = nightly.plan()
    assert [(Path(one.path).name, one.what, one.rows) for one in plan.files] == [
        ("a.parquet", "new", 40),
        ("b.parquet", "new", 20),
    ]
    whole = {name: [(stage, slices, rows) for stage in ("rows", "media", "features")]
             for name, slices, rows in (("web-000000", 4, 40), ("web-000001", 2, 20))}  # fmt: skip
    assert stages(plan) == whole
    assert plan.work[0].stages[0].why == "the part is new"
    assert (plan.forecast.verdict, plan.forecast.why) == ("new", ("there is no release yet",))
    assert not (nightly.folder / "workspace").exists()


def test_nothing_new_is_no_work_and_the_same_release(nightly: Nightly) -> None:
    first = nightly.refresh()
    before = every_file(nightly)
    plan = nightly.plan()
    assert (plan.files, plan.work, plan.removed) == ([], [], [])
    assert (plan.forecast.verdict, plan.forecast.release_id) == ("stands", first)
    assert every_file(nightly) == before
    assert nightly.refresh() == first
    assert nightly.ran == []
    assert every_file(nightly) == before


def test_a_touched_file_of_the_same_content_is_no_work(nightly: Nightly) -> None:
    first = nightly.refresh()
    os.utime(nightly.folder / "inbox/a.parquet", ns=(5, 5))
    plan = nightly.plan()
    assert (plan.files, plan.work, plan.forecast.verdict) == ([], [], "stands")
    assert nightly.refresh() == first


def test_a_new_file_is_work_for_its_part_alone(nightly: Nightly) -> None:
    first = nightly.refresh()
    nightly.write("c.parquet", range(60, 75))
    plan = nightly.plan()
    assert [(one.what, one.rows) for one in plan.files] == [("new", 15)]
    assert stages(plan) == {"web-000002": [("rows", 2, 15), ("media", 2, 15), ("features", 2, 15)]}
    assert plan.forecast.verdict == "new"
    assert plan.forecast.why == ("1 parts are not in it: web-000002",)
    assert nightly.refresh() != first
    assert [(part, stage) for part, stage, _ in nightly.ran] == [
        ("web-000002", s) for s in ("rows", "media", "features")
    ]


def test_other_content_of_the_same_size_is_seen_and_makes_only_its_parts_stale(nightly: Nightly) -> None:
    nightly.refresh()
    path = nightly.folder / "inbox/b.parquet"
    size = path.stat().st_size
    nightly.write("b.parquet", range(40, 60), caption="CAPTION number {}")
    assert path.stat().st_size == size
    plan = nightly.plan()
    assert [(Path(one.path).name, one.what) for one in plan.files] == [("b.parquet", "changed")]
    assert stages(plan)["web-000001"][0] == ("rows", 2, 20)
    assert list(stages(plan)) == ["web-000001"]
    assert plan.work[0].stages[0].why == "the content of its source file changed"
    assert [one.is_exact for one in plan.work[0].stages] == [True, False, False]
    assert plan.forecast.verdict == "depends"


def test_same_size_and_same_time_are_taken_for_the_same_content(nightly: Nightly) -> None:
    """The limit of not reading a file: who forges its time is believed. `--redo` reads it anew."""
    nightly.refresh()
    path = nightly.folder / "inbox/b.parquet"
    facts = path.stat()
    nightly.write("b.parquet", range(40, 60), caption="CAPTION number {}")
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert nightly.plan().files == []


def test_a_removed_file_takes_its_part_out_of_the_release(nightly: Nightly) -> None:
    first = nightly.refresh()
    (nightly.folder / "inbox/b.parquet").unlink()
    plan = nightly.plan()
    assert [(one.what, one.rows) for one in plan.files] == [("removed", 20)]
    assert (plan.removed, plan.work) == (["web-000001"], [])
    assert plan.forecast.why == ("1 parts of it leave: web-000001",)
    foreseen = plan.forecast.release_id
    assert nightly.refresh() == foreseen != first
    assert nightly.ran == []


def test_removed_rows_leave_the_release_and_the_part_stays(nightly: Nightly) -> None:
    nightly.refresh()
    nightly.write("b.parquet", range(40, 50))
    plan = nightly.plan()
    assert stages(plan)["web-000001"][0] == ("rows", 1, 10)
    second = nightly.refresh()
    keys = set().union(*nightly.members(second).values())
    assert len(keys) == 50


def test_an_unreadable_file_is_named_and_holds_nothing_up(nightly: Nightly) -> None:
    first = nightly.refresh()
    (nightly.folder / "inbox/b.parquet").write_bytes(b"PAR1 and nothing else PAR1")
    plan = nightly.plan()
    assert [(one.what, bool(one.note)) for one in plan.files] == [("unreadable", True)]
    assert (plan.work, plan.removed, plan.forecast.verdict) == ([], [], "stands")
    assert nightly.refresh() == first


def test_a_renamed_file_is_no_work(nightly: Nightly) -> None:
    nightly.refresh()
    (nightly.folder / "inbox/b.parquet").rename(nightly.folder / "inbox/z.parquet")
    plan = nightly.plan()
    assert [(one.what, Path(one.note).name) for one in plan.files] == [("renamed", "b.parquet")]
    assert (plan.work, plan.removed, plan.forecast.verdict) == ([], [], "stands")


def test_due_retries_say_how_many_urls_and_which_slices(nightly: Nightly) -> None:
    nightly.gone = {f"http://example.com/{n}.jpg" for n in (3, 4, 25)}
    first = nightly.refresh(NOW - timedelta(days=1))
    assert nightly.plan(now=NOW - timedelta(seconds=1)).work == []
    plan = nightly.plan()
    (part,) = plan.work
    media, features = part.stages
    assert (media.stage, media.slices, media.of, media.rows, media.urls_due) == ("media", 2, 4, 3, 3)
    assert "retries due since" in media.why
    assert (features.slices, features.is_exact) == (2, False)
    assert (plan.forecast.verdict, plan.forecast.why) == ("depends", ("a new one if any retry succeeds",))
    assert nightly.refresh() == first, "they fail again: nothing changes"
    assert nightly.ran == [("web-000000", "media", 2), ("web-000000", "features", 0)]
    nightly.gone.clear()
    assert nightly.refresh() != first
    assert nightly.ran == [("web-000000", "media", 2), ("web-000000", "features", 2)]


@pytest.mark.parametrize(
    ("sections", "source", "stale", "said"),
    [
        ({}, {"slice_rows": 20}, ("rows", "media", "features"), "source web.slice_rows: 10 -> 20"),
        ({"download": {"image_size": 64}}, {}, ("media", "features"), "download.image_size: 256 -> 64"),
        ({"score": {"model": "demo", "precision": "bf16"}}, {}, ("features",), 'score.precision: "auto" -> "bf16"'),
        ({"privacy": {"blur_faces": True}}, {}, ("media", "features"), "privacy.blur_faces: false -> true"),
        ({"privacy": {"count_faces": True}}, {}, ("features",), "privacy.count_faces, from a score of: null -> "),
        ({"synthesis": {"speech": 0.5}}, {}, ("media", "features"), "synthesis.speech: 0.0 -> 0.5"),
    ],
)
def test_a_changed_setting_of_a_part_is_named_with_both_values(
    nightly: Nightly, sections: dict, source: dict, stale: tuple, said: str
) -> None:
    nightly.refresh()
    nightly.sections, nightly.source = sections, source
    plan = nightly.plan()
    assert {tuple(s.stage for s in one.stages) for one in plan.work} == {stale}
    (named,) = [text for (stage, text), parts in plan.settings.items() if stage == stale[0] and parts == 2]
    assert named.startswith(said)
    assert said in plan.work[0].stages[0].why
    assert plan.totals[0].rows == 60


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"select": {"filter": {"min_clip_score": 0.5}}}, "select.filter.min_clip_score: null -> 0.5"),
        ({"shards": {"shard_mb": 0.04, "validation_fraction": 0.1}}, "shards.shard_mb: 0.02 -> 0.04"),
        ({"instruct": {"languages": ["en"]}}, 'instruct.languages: ["en","zh"] -> ["en"]'),
        ({"seed": 7}, "seed: 0 -> 7"),
    ],
)
def test_a_changed_setting_of_the_release_runs_no_part_and_its_id_is_known(
    nightly: Nightly, sections: dict, said: str
) -> None:
    first = nightly.refresh()
    nightly.sections = sections
    plan = nightly.plan()
    assert plan.work == []
    assert plan.forecast.verdict == "new"
    assert said in plan.forecast.why
    assert nightly.refresh() == plan.forecast.release_id != first
    assert nightly.ran == []


def test_a_setting_of_speed_changes_nothing(nightly: Nightly) -> None:
    nightly.refresh()
    nightly.sections = {"download": {"threads": 3, "retries": 5}, "engine": {"wait_s": 1}}
    plan = nightly.plan()
    assert (plan.work, plan.forecast.verdict) == ([], "stands")


def test_a_stamp_without_settings_stays_fresh_and_says_so_once_it_is_stale(nightly: Nightly) -> None:
    """A workspace of before settings were kept beside the stamps."""
    nightly.refresh()
    for path in (nightly.folder / "workspace/parts").glob("*/*.json"):
        path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "settings"}))
    assert nightly.plan().work == []
    nightly.sections = {"download": {"image_size": 64}}
    plan = nightly.plan()
    assert plan.work[0].stages[0].why == "its input or settings changed"
    assert plan.settings == {}


def test_an_interrupted_part_counts_only_the_slices_that_are_missing(nightly: Nightly) -> None:
    nightly.refresh()
    nightly.workspace.clear_part_stamp("web-000000", "media")
    nightly.workspace.clear_slice_stamp("web-000000", "media", "0002")
    (part,) = nightly.plan().work
    assert [(s.stage, s.slices, s.rows) for s in part.stages] == [("media", 1, 10), ("features", 1, 10)]
    assert part.stages[0].why == "not finished: 3 of 4 slices are done"


def test_a_source_taken_out_of_the_config_leaves_with_its_parts(nightly: Nightly) -> None:
    nightly.refresh()
    nightly.source = {"name": "other"}
    plan = nightly.plan()
    assert plan.removed == ["web-000000", "web-000001"]
    assert {one.part.name for one in plan.work} == {"other-000000", "other-000001"}


def test_the_fast_plan_reads_stamps_alone(nightly: Nightly, monkeypatch: pytest.MonkeyPatch) -> None:
    nightly.refresh()
    nightly.write("c.parquet", range(60, 75))
    nightly.sections = {"download": {"image_size": 64}}

    def never(*_: object) -> None:
        raise AssertionError("it was read")

    monkeypatch.setattr("mmdata.inspect.next_build.look_at_sources", never)
    monkeypatch.setattr("mmdata.workspace.layout.Workspace.slice_stamp", never)
    monkeypatch.setattr("mmdata.inspect.next_parts.read_table", never)
    plan = nightly.plan(fast=True)
    assert stages(plan) == {
        "web-000000": [("media", 4, 40), ("features", 4, 40)],
        "web-000001": [("media", 2, 20), ("features", 2, 20)],
    }


def test_a_pattern_without_files_is_a_mistake_in_the_config(nightly: Nightly) -> None:
    nightly.source = {"files": str(nightly.folder / "nowhere/*")}
    with pytest.raises(UserError, match="no file matches"):
        nightly.plan()


def test_a_rolled_back_release_is_not_promised_again(nightly: Nightly) -> None:
    from mmdata.releases.pins import roll_back

    first = nightly.refresh()
    nightly.write("c.parquet", range(60, 75))
    second = nightly.refresh()
    roll_back(nightly.workspace, first)
    plan = nightly.plan()
    assert (plan.forecast.verdict, plan.forecast.release_id) == ("stands", first)
    assert second in plan.forecast.why[0]


def test_json_and_markdown_tell_the_same(nightly: Nightly) -> None:
    nightly.refresh()
    nightly.sections = {"download": {"image_size": 64}}
    plan = nightly.plan()
    told = json.loads(json.dumps(plan.to_json()))
    assert told["totals"][0] == {
        **{"stage": "media", "parts": 2, "slices": 6, "rows": 60, "urls_due": 0, "is_exact": True}
    }
    assert told["parts"]["work"][0]["stages"][0]["settings"] == [{"name": "download.image_size", "old": 256, "new": 64}]
    text = as_markdown(plan)
    assert "| media | 2 | 6 | 60 rows |" in text
    assert "download.image" in text


def test_looking_makes_no_index_of_captions(nightly: Nightly) -> None:
    nightly.write("a.parquet", range(3))
    videos = nightly.folder / "howto.csv"
    videos.write_text("video_id,category_1,category_2,rank,task_id\nabcdefghijk,Food,Cooking,1,7\n")
    captions = nightly.folder / "raw_caption.json"
    captions.write_text(json.dumps({"abcdefghijk": {"start": [0.0], "end": [12.0], "text": ["cut the onion"]}}))
    nightly.source = {"kind": "howto100m", "files": str(videos), "captions": str(captions)}
    assert nightly.plan().work[0].stages[0].rows == 1
    assert not (nightly.folder / "workspace").exists()


def test_an_opt_out_list_that_grew_is_told_and_not_taken_over(nightly: Nightly) -> None:
    first = nightly.refresh()
    named = nightly.folder / "optout.txt"
    named.write_text("http://example.com/3.jpg\n")
    nightly.sections = {"optout": [str(named)]}
    before = every_file(nightly)
    plan = nightly.plan()
    assert plan.opt_out_changes
    assert plan.forecast.verdict == "depends"
    assert every_file(nightly) == before
    assert nightly.refresh() != first
    assert not nightly.plan().opt_out_changes
