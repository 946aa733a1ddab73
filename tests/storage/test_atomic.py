"""Atomic writes: readers see the old file or the new one, and what failed leaves nothing under the name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from upath import UPath

from mmdata.storage import atomic
from mmdata.storage.atomic import TEMPORARY, atomic_path, is_local, publish_bytes, publish_json, withdraw
from tests.support.buckets import s3_bucket


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(f"{TEMPORARY}*")]


def test_a_file_appears_when_the_block_ends_and_not_before(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "down" / "note.txt"
    with atomic_path(UPath(target)) as draft:
        draft.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    assert leftovers(tmp_path) == []


def test_an_error_in_the_block_leaves_the_old_file_and_no_draft(tmp_path: Path) -> None:
    target = tmp_path / "note.txt"
    target.write_text("old")

    def write_half() -> None:
        with atomic_path(UPath(target)) as draft:
            draft.write_text("half of the n")
            raise RuntimeError("the writer fails")

    with pytest.raises(RuntimeError, match="the writer fails"):
        write_half()
    assert target.read_text() == "old"
    assert leftovers(tmp_path) == []


def test_a_file_can_be_named_by_its_content(tmp_path: Path) -> None:
    with atomic_path(UPath(tmp_path / "any.txt"), lambda draft: f"{draft.read_text()}.txt") as draft:
        draft.write_text("abc")
    assert [path.name for path in tmp_path.iterdir()] == ["abc.txt"]


def test_json_has_sorted_keys_and_equal_values_have_equal_bytes(tmp_path: Path) -> None:
    publish_json(UPath(tmp_path / "a.json"), {"b": "é", "a": [1]})
    publish_json(UPath(tmp_path / "b.json"), {"a": [1], "b": "é"})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert list(json.loads((tmp_path / "a.json").read_text())) == ["a", "b"]
    assert "é" in (tmp_path / "a.json").read_text(encoding="utf-8")


def test_the_file_and_its_new_folders_are_synced_before_and_after_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real = atomic.sync

    def recorded(path: Path) -> None:
        synced.append(path.name if not path.name.startswith(TEMPORARY) else "draft")
        real(path)

    monkeypatch.setattr(atomic, "sync", recorded)
    publish_bytes(UPath(tmp_path / "one" / "two" / "file"), b"x")
    assert synced == [tmp_path.name, "one", "draft", "two"]


def test_withdraw_deletes_in_order_passes_over_missing_files_and_syncs_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(atomic, "sync", synced.append)
    (tmp_path / "a").touch()
    withdraw(UPath(tmp_path / "a"), UPath(tmp_path / "missing"))
    assert list(tmp_path.iterdir()) == []
    assert synced == [tmp_path]


def test_the_same_calls_work_on_an_object_store() -> None:
    with s3_bucket() as url:
        target = UPath(url) / "notes" / "a.json"
        assert not is_local(target)
        publish_json(target, {"a": 1})
        assert json.loads(target.read_text()) == {"a": 1}
        withdraw(target, UPath(url) / "missing")
        assert not target.exists()
