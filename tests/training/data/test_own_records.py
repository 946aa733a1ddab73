"""An own file is indexed once; what is bad in it is counted, named by line, and tried again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmdata.errors import DataError, UserError
from tests.support.own_data import base64_of, in_llava_form, in_record_form, write_lines, write_list, write_pictures
from training.data.own_records import OwnRecords, open_own_records

LINES_OF_A_RECORD = 6  # of the record form, in a list with indent 1


def opened(path: Path, cache: Path, share: float = 0.0, held_out: float = 0.0, **changed: Any) -> OwnRecords:
    return open_own_records(path, changed.get("pictures", []), held_out, cache, share)


def records_of(records: OwnRecords, split: Any = "train") -> list[Any]:
    return [records.record(row) for row in records.table(split)]


@pytest.mark.parametrize("write", [write_list, write_lines])
def test_a_list_and_lines_are_indexed_alike(tmp_path: Path, write: Any) -> None:
    names = write_pictures(tmp_path / "pictures", 4)
    written = [in_record_form(f"pictures/{name}", said=f"猫 {name}") for name in names]
    written.append(in_llava_form([base64_of(9), "pictures/001.jpg"]))
    records = opened(write(tmp_path / "own.json", written), tmp_path / "cache")
    assert records.counts == {"train": 5, "validation": 0, "bad": 0, "left_out": 0}
    assert records_of(records) == written
    table = records.table("train")
    assert table["images"].tolist() == [1, 1, 1, 1, 2]
    assert table["first"].tolist() == [0, 1, 2, 3, 4]
    assert records.table("places")["number"].tolist() == [0, 0, 0, 0, -1, 0]
    assert (table["tokens"] > 0).all()
    step = LINES_OF_A_RECORD if write is write_list else 1
    assert table["line"][:4].tolist() == [(2 if step > 1 else 1) + step * at for at in range(4)]


def test_bad_records_are_left_out_counted_and_named(tmp_path: Path) -> None:
    names = write_pictures(tmp_path, 8)
    written = [in_record_form(name) for name in names]
    written[2]["input_image"], written[5]["output"], written[6] = "none.jpg", "", {"instruction": "a", "output": None}
    path = write_list(tmp_path / "own.json", written)
    records = opened(path, tmp_path / "cache", share=0.25)
    assert records.counts == {"train": 5, "validation": 0, "bad": 2, "left_out": 1}
    listed = [json.loads(line) for line in records.left_out_path.read_text().splitlines()]
    assert [(line["line"], line["bad"]) for line in listed] == [(14, True), (32, True), (38, False)]
    assert "none.jpg" in listed[0]["reason"]
    assert {line["file"] for line in listed} == {str(path)}
    with pytest.raises(DataError) as caught:
        opened(path, tmp_path / "cache", share=0.24)
    text = str(caught.value)
    assert text.startswith(f"{path}: 2 of 8 records cannot be used, more than data.max_bad_share = 0.24:\n  line 14: ")
    assert "line 32: an answer is empty" in text
    assert str(records.left_out_path) in text
    assert text.endswith("Remedy: mend them, or a larger data.max_bad_share.")


def test_a_line_that_is_not_json_is_bad_and_a_broken_list_is_refused(tmp_path: Path) -> None:
    write_lines(tmp_path / "own.jsonl", [in_record_form(None)] * 3)
    (tmp_path / "own.jsonl").write_text((tmp_path / "own.jsonl").read_text() + "{broken\n")
    records = opened(tmp_path / "own.jsonl", tmp_path / "cache", share=0.25)
    assert records.counts["bad"] == 1
    assert "not JSON" in records.left_out_path.read_text()
    (tmp_path / "own.json").write_text('[{"instruction": "a", "output": "b"}, {')
    with pytest.raises(DataError, match="not a JSON list"):
        opened(tmp_path / "own.json", tmp_path / "cache", share=1.0)


def test_a_mended_picture_is_found_and_the_digest_changes(tmp_path: Path) -> None:
    """Both remedies of the error work: a larger share, and a mended record."""
    names = write_pictures(tmp_path, 3)
    path = write_list(tmp_path / "own.json", [in_record_form(name) for name in [*names, "late.jpg"]])
    with pytest.raises(DataError, match=r"late\.jpg"):
        opened(path, tmp_path / "cache")
    before = opened(path, tmp_path / "cache", share=0.5)
    assert before.counts["bad"] == 1
    assert opened(path, tmp_path / "cache", share=0.5).digest == before.digest
    (tmp_path / "late.jpg").write_bytes((tmp_path / names[0]).read_bytes())
    after = opened(path, tmp_path / "cache")
    assert after.counts == {"train": 4, "validation": 0, "bad": 0, "left_out": 0}
    assert after.digest != before.digest, "a checkpoint of before knows other data"


def test_an_index_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = write_pictures(tmp_path, 3)
    path = write_list(tmp_path / "own.json", [in_record_form(name) for name in names])
    first = opened(path, tmp_path / "cache")
    monkeypatch.setattr("training.data.own_records.json_records", lambda path: pytest.fail("indexed again"))
    assert opened(path, tmp_path / "cache").digest == first.digest


def test_records_of_one_picture_are_held_out_together(tmp_path: Path) -> None:
    names = write_pictures(tmp_path, 40)
    written = [in_record_form(name, asked=f"Question {turn}?") for turn in range(3) for name in names]
    path = write_list(tmp_path / "own.json", written)
    records = opened(path, tmp_path / "cache", held_out=0.3)
    splits = [{record["input_image"] for record in records_of(records, split)} for split in ("train", "validation")]
    assert splits[0].isdisjoint(splits[1])
    assert splits[0] | splits[1] == set(names)
    assert 4 <= len(splits[1]) <= 20
    assert records.counts["validation"] == 3 * len(splits[1])
    assert opened(path, tmp_path / "cache", held_out=0.0).counts["validation"] == 0


def test_pictures_lie_where_the_setting_says(tmp_path: Path) -> None:
    names = write_pictures(tmp_path / "elsewhere", 2)
    path = write_list(tmp_path / "own.json", [in_record_form(name) for name in names])
    assert opened(path, tmp_path / "cache", pictures=[tmp_path / "elsewhere"]).counts["train"] == 2
    with pytest.raises(DataError, match=r"no picture or sound '000.jpg' in"):
        opened(path, tmp_path / "cache")


def test_a_file_that_is_missing_or_was_edited_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none.json: no such file of records\. Remedy"):
        opened(tmp_path / "none.json", tmp_path / "cache")
    path = write_lines(tmp_path / "own.jsonl", [in_record_form(None)] * 2)
    records = opened(path, tmp_path / "cache")
    path.write_text("x" * 500)
    with pytest.raises(DataError, match=r"own.jsonl: line 2: the record has changed"):
        records.record(records.table("train")[1])


def test_many_records_are_indexed_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.data.own_records._BATCH_RECORDS", 3)
    names = write_pictures(tmp_path, 10)
    path = write_lines(tmp_path / "own.jsonl", [in_record_form(name, second="000.jpg") for name in names])
    records = opened(path, tmp_path / "cache")
    assert [record["input_image"] for record in records_of(records)] == names
    assert records.table("train")["first"].tolist() == np.arange(0, 20, 2).tolist()
