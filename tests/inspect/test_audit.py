"""The audits, on tables that the real selection wrote and then on damaged ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from upath import UPath

from mmdata.engine.freshness import releasable_parts
from mmdata.inspect.audit import Finding, download_share, no_split_leakage, no_uid_lost, refuse_part, scores_sound
from tests.support.workspaces import Built, add_parts, build, release

PART = "web-000000"


@pytest.fixture
def built(tmp_path: Path) -> Built:
    made = build(str(tmp_path / "workspace"), {PART: range(20), "web-000001": range(15, 30)})
    release(made)
    return made


def change(path: UPath, frame: pl.DataFrame) -> None:
    frame.write_parquet(path.path)


def selection(built: Built) -> UPath:
    return built.workspace.release_dir(str(built.workspace.latest())) / "selection.parquet"


def test_a_sound_workspace_passes_every_audit(built: Built) -> None:
    lost = no_uid_lost(built.workspace)
    assert lost.passed
    assert lost.numbers["rows_read"] == 35
    assert lost.numbers["uids"] == 30  # five samples stand in both parts
    assert no_split_leakage(built.workspace).passed
    assert scores_sound(built.workspace, PART).passed
    share = download_share(built.corpus, built.workspace, PART)
    assert share.passed
    assert share.numbers["rows"] == 20


def test_a_lost_an_invented_and_a_miscounted_uid_are_told_apart(built: Built) -> None:
    path = selection(built)
    frame = pl.read_parquet(path.path)
    stranger = frame.head(1).with_columns(uid=pl.lit("f" * 32))
    damaged = pl.concat([frame.tail(-1), stranger])
    once_more = pl.when(pl.col("uid") == frame["uid"][5]).then(pl.col("copies") + 1).otherwise(pl.col("copies"))
    change(path, damaged.with_columns(copies=once_more))
    found = no_uid_lost(built.workspace)
    assert not found.passed
    assert (found.numbers["lost"], found.numbers["invented"], found.numbers["miscounted"]) == (1, 1, 1)
    assert frame["uid"][0] in {example["uid"] for example in found.examples}


def told(built: Built, rows: int, samples: int) -> Finding:
    """The audit, where the catalogue has 10 rows of the first part, and its stamp says what was read."""
    catalog = built.workspace.catalog()
    part = replace(catalog.parts[PART], stop=10)
    built.workspace.write_catalog(replace(catalog, parts={**catalog.parts, PART: part}))
    stamp = built.workspace.part_stamp(PART, "rows")
    assert stamp is not None
    counts = {**stamp.counts, "rows": rows, "samples": samples}
    built.workspace.write_part_stamp(PART, "rows", replace(stamp, counts=counts))
    return no_uid_lost(built.workspace)


def test_videos_are_held_against_videos_and_clips_against_clips(built: Built) -> None:
    assert told(built, rows=10, samples=20).passed, "20 clips of 10 videos"
    assert not told(built, rows=9, samples=20).passed
    lost = told(built, rows=10, samples=21)
    assert not lost.passed
    assert "36 samples in them, but 35 are in the tables" in lost.summary


def test_a_doubled_row_in_the_selection_is_found(built: Built) -> None:
    path = selection(built)
    frame = pl.read_parquet(path.path)
    change(path, pl.concat([frame, frame.head(1)]))
    assert not no_uid_lost(built.workspace).passed


def test_a_cluster_in_two_splits_is_a_leak(built: Built) -> None:
    path = selection(built)
    frame = pl.read_parquet(path.path).with_row_index("n")
    every_other = pl.when(pl.col("n") % 2 == 0).then(pl.lit("train")).otherwise(pl.lit("validation"))
    change(path, frame.with_columns(split=every_other, cluster=pl.lit(7, pl.Int32), keep=True).drop("n"))
    found = no_split_leakage(built.workspace)
    assert not found.passed
    assert found.numbers["leaking_groups"] == 1


def test_clips_of_one_video_in_two_splits_are_a_leak_and_their_cluster_is_not(built: Built) -> None:
    path = selection(built)
    frame = pl.read_parquet(path.path).with_row_index("n")
    every_other = pl.when(pl.col("n") % 2 == 0).then(pl.lit("train")).otherwise(pl.lit("validation"))
    change(path, frame.with_columns(split=every_other, cluster=pl.lit(7, pl.Int32), keep=True).drop("n"))
    tables = list((built.workspace.root / "parts").glob("*/rows/*.parquet"))
    for table in tables:
        change(table, pl.read_parquet(table.path).with_columns(kind=pl.lit("video")))
    assert no_split_leakage(built.workspace).passed
    for table in tables:
        change(table, pl.read_parquet(table.path).with_columns(url=pl.lit("https://e/one.mp4")))
    assert no_split_leakage(built.workspace).numbers["leaking_groups"] == 1


def test_a_kept_sample_without_a_split_is_found(built: Built) -> None:
    path = selection(built)
    change(path, pl.read_parquet(path.path).with_columns(split=pl.lit(None, pl.String)))
    assert not no_split_leakage(built.workspace).passed


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: f.with_columns(clip_score=pl.lit(float("nan"), pl.Float32)), "the score is not a cosine"),
        (lambda f: f.with_columns(clip_score=pl.lit(float("inf"), pl.Float32)), "the score is not a cosine"),
        (lambda f: f.with_columns(clip_score=pl.lit(1.5, pl.Float32)), "the score is not a cosine"),
        (lambda f: f.with_columns(clip_score=pl.lit(None, pl.Float32)), "neither measured nor with a problem"),
        (lambda f: f.tail(-1), "no features row"),
        (lambda f: f.with_columns(uid=pl.lit("e" * 30) + pl.int_range(10, 10 + pl.len()).cast(pl.String)), "not among"),
    ],
    ids=["nan", "infinite", "no cosine", "missing", "row lost", "other uids"],
)
def test_unsound_scores_are_found(built: Built, damage: object, words: str) -> None:
    assert callable(damage)
    stamp = built.workspace.part_stamp(PART, "features")
    assert stamp is not None
    path = built.workspace.table(PART, "features", stamp.slices[0])
    change(path, damage(pl.read_parquet(path.path)))
    found = scores_sound(built.workspace, PART)
    assert not found.passed
    assert any(words in str(example["wrong"]) for example in found.examples)


def test_a_doubled_features_row_is_found(built: Built) -> None:
    stamp = built.workspace.part_stamp(PART, "features")
    assert stamp is not None
    path = built.workspace.table(PART, "features", stamp.slices[0])
    frame = pl.read_parquet(path.path)
    change(path, pl.concat([frame, frame.head(1)]))
    assert not scores_sound(built.workspace, PART).passed


def test_a_uid_that_stands_in_two_slices_is_sound(built: Built) -> None:
    """The same row far apart in a file; the selection collapses it."""
    add_parts(built, {PART: [number for number in range(10) for _slice in range(2)]})
    assert scores_sound(built.workspace, PART).passed


def test_a_refused_part_is_not_released_until_its_stage_runs_again(built: Built) -> None:
    refuse_part(built.workspace, PART, "features", "scores_sound: 1 rows wrong")
    ready, refused = releasable_parts(built.corpus, built.workspace)
    assert [part.name for part in ready] == ["web-000001"]
    assert refused == {PART: "scores_sound: 1 rows wrong"}


def test_a_part_that_was_never_fetched_has_no_share(built: Built) -> None:
    assert not download_share(built.corpus, built.workspace, "web-000009").passed


def test_what_was_stored_of_clips_and_sound_must_be_measured_and_texts_need_nothing(built: Built) -> None:
    stamp = built.workspace.part_stamp(PART, "features")
    assert stamp is not None
    rows, media, features = (
        built.workspace.table(PART, stage, stamp.slices[0]) for stage in ("rows", "media", "features")
    )
    change(features, pl.read_parquet(features.path).with_columns(clip_score=pl.lit(None, pl.Float32)))
    change(rows, pl.read_parquet(rows.path).with_columns(kind=pl.lit("text")))
    assert scores_sound(built.workspace, PART).passed
    change(media, pl.read_parquet(media.path).with_columns(audio_s=pl.lit(2.0)))
    assert not scores_sound(built.workspace, PART).passed
    loud = pl.read_parquet(features.path).with_columns(audio_rms_db=pl.lit(-20.0, pl.Float32))
    change(features, loud)
    assert scores_sound(built.workspace, PART).passed
