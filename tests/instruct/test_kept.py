"""The kept samples, with all that instructions need to know of them."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from mmdata.errors import DataError
from mmdata.instruct.kept import QA_COLUMNS, has_image, question_and_answer, read_kept
from mmdata.samples import SELECTION
from mmdata.storage.tables import read_table, write_table
from tests.support import tiny_release
from tests.support.tiny_release import RELEASE, Tiny


@pytest.mark.parametrize(("question", "answer"), QA_COLUMNS)
def test_question_and_answer_are_found_whatever_their_case(question: str, answer: str) -> None:
    columns = {"other": 1, question.upper(): " why? ", answer.title(): "so\n"}
    assert question_and_answer(pl.Series([json.dumps(columns)])) == (["why?"], ["so"])


@pytest.mark.parametrize(
    "extra",
    [
        None,
        "",
        "{",
        "[1]",
        '"question"',
        '{"question": "why?"}',
        '{"question": "why?", "answer": " "}',
        '{"question": "why?", "answer": 3}',
        '{"question": "why?", "output": "so"}',
    ],
)
def test_without_both_there_is_neither(extra: str | None) -> None:
    assert question_and_answer(pl.Series([extra], dtype=pl.String)) == ([None], [None])


def test_the_first_pair_that_is_whole_is_taken() -> None:
    columns = {"question": "why?", "answer": None, "prompt": "go", "response": "no", "instruction": "x", "output": "y"}
    assert question_and_answer(pl.Series([json.dumps(columns)])) == (["go"], ["no"])


def test_first_copies_come_back_by_uid_with_their_captions_and_places(tiny: Tiny) -> None:
    read: list[int] = []
    kept = read_kept(tiny.workspace, RELEASE, True, read.append)
    assert kept.frame["uid"].to_list() == sorted(tiny.split)
    assert sum(read) == len(tiny.split)
    assert dict(kept.frame.select("uid", "split").iter_rows()) == tiny.split
    assert all(tiny.caption[uid] == caption for uid, caption in kept.frame.select("uid", "caption").iter_rows())
    assert kept.frame["question"].drop_nulls().str.contains("plus one|picture").all()
    tables = [read_table(path, ["uid"])["uid"].to_pylist() for path in kept.features]
    for uid, place, row in kept.frame.select("uid", "place", "row").iter_rows():
        assert tables[place][row] == uid
    assert read_kept(tiny.workspace, RELEASE, False, read.append).frame["question"].null_count() == len(kept.frame)


def test_a_release_that_keeps_nothing_has_the_same_columns(tiny: Tiny, tmp_path: Path) -> None:
    empty = tiny_release.build(tmp_path, samples=0)
    kept = read_kept(empty.workspace, RELEASE, True, lambda _: None)
    assert len(kept.frame) == 0
    whole = read_kept(tiny.workspace, RELEASE, True, lambda _: None).frame
    assert set(kept.frame.columns) == set(whole.columns)


def test_an_index_that_the_selection_does_not_know_is_named(tmp_path: Path) -> None:
    tiny = tiny_release.build(tmp_path, samples=24)
    selection = pl.DataFrame(pl.from_arrow(read_table(tiny.folder / "selection.parquet")))
    lacking = selection.filter(pl.col("uid") != next(iter(tiny.split)))
    write_table(tiny.folder / "selection.parquet", lacking.to_arrow().cast(SELECTION))
    with pytest.raises(
        DataError, match=r"index\.parquet: 1 samples are not among .* Remedy: `mmdata build --redo release`"
    ):
        read_kept(tiny.workspace, RELEASE, False, lambda _: None)


def test_a_features_table_that_lacks_a_sample_is_named(tmp_path: Path) -> None:
    tiny = tiny_release.build(tmp_path, samples=24)
    path = tiny.workspace.table("web-000000", "features", "0000")
    features = read_table(path)
    write_table(path, features.slice(0, 2))
    with pytest.raises(DataError, match=r"part web-000000, slice 0000: its tables lack \d+ samples .* Remedy"):
        read_kept(tiny.workspace, RELEASE, False, lambda _: None)


def test_only_stored_pictures_are_images() -> None:
    rows = [("image", ["jpg"]), ("image", []), ("video", ["000.jpg"]), ("audio", ["flac"])]
    frame = pl.DataFrame(rows, schema={"kind": pl.String, "exts": pl.List(pl.String)}, orient="row")
    assert has_image(frame).tolist() == [True, False, False, False]


def test_an_exact_duplicate_in_another_language_gives_its_caption(tmp_path: Path) -> None:
    tiny = tiny_release.build(tmp_path, samples=40)
    path = tiny.workspace.release_dir(RELEASE) / "selection.parquet"
    selection = pl.DataFrame(read_table(path))
    followers = selection.filter(pl.col("duplicate_of").is_not_null())
    leader = followers["duplicate_of"][0]
    for part, name in followers.select("part", "slice").unique().iter_rows():
        for stage, column, value in (("rows", "caption", "一只猫"), ("features", "lang", "zh")):
            table = tiny.workspace.table(part, stage, name)
            rows = pl.DataFrame(read_table(table))
            is_follower = pl.col("uid").is_in(followers["uid"].implode())
            changed = rows.with_columns(pl.when(is_follower).then(pl.lit(value)).otherwise(column).alias(column))
            write_table(table, changed.to_arrow().cast(read_table(table).schema))
    captions = {}
    for reason in ("duplicate:phash", "duplicate:url"):
        renamed = selection.with_columns(
            pl.when(pl.col("duplicate_of").is_not_null()).then(pl.lit(reason)).otherwise("reason").alias("reason")
        )
        write_table(path, renamed.to_arrow().cast(SELECTION))
        frame = read_kept(tiny.workspace, RELEASE, False, lambda done: None, tiny.corpus.recaption).frame
        captions[reason] = dict(frame.select("uid", "further_captions").drop_nulls().iter_rows())
    assert captions == {"duplicate:phash": {}, "duplicate:url": {leader: [{"lang": "zh", "caption": "一只猫"}]}}
