"""Files that scores are computed from decide by their names, sizes and times of change, not by where they lie."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from mmdata.config.load import parse_corpus
from mmdata.config.select_scores import Target
from mmdata.config.selection_files import selection_file_states, target_files
from mmdata.errors import UserError
from mmdata.releases.draft import release_inputs
from mmdata.workspace.layout import Workspace


def corpus_in(folder: Path, **select: Any) -> Any:
    scores = {
        "near": {"kind": "norm-sim", "target": {"pictures": "pictures"}},
        "look": {"kind": "aesthetic", "weights": "head.pth"},
        "unused": {"kind": "norm-sim", "target": {"table": "nowhere.parquet"}},
    }
    chosen = {"scores": scores, "keep_scores": ["near", "look"], **select}
    source = {"name": "web", "kind": "laion", "files": "a/*.parquet"}
    return parse_corpus({"workspace": "w", "sources": [source], "select": chosen}, base=folder)


def fill(folder: Path) -> None:
    (folder / "pictures" / "deep").mkdir(parents=True)
    for name in ("b.JPG", "a.png", "deep/c.webp", ".hidden.png", "notes.txt"):
        (folder / "pictures" / name).write_bytes(name.encode())
    (folder / "head.pth").write_bytes(b"weights")


def test_the_pictures_of_a_folder_are_found_in_order(tmp_path: Path) -> None:
    fill(tmp_path)
    files = target_files(Target(pictures=str(tmp_path / "pictures")))
    assert [path.name for path in files] == ["a.png", "b.JPG", "c.webp"]


def test_a_moved_folder_decides_the_same_release_and_a_changed_file_another(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    fill(one)
    shutil.copytree(one, two)
    inputs = [release_inputs(corpus_in(folder), Workspace("w"), []) for folder in (one, two)]
    assert inputs[0] == inputs[1]
    (two / "head.pth").write_bytes(b"other weights")
    assert release_inputs(corpus_in(two), Workspace("w"), []) != inputs[0]
    (one / "pictures" / "new.png").write_bytes(b"x")
    assert release_inputs(corpus_in(one), Workspace("w"), []) != inputs[0]


def test_a_missing_file_is_named_if_its_score_is_used(tmp_path: Path) -> None:
    fill(tmp_path)
    assert len(selection_file_states(corpus_in(tmp_path).select)) == 2
    with pytest.raises(UserError, match=r"nowhere\.parquet: no such file or folder.*Remedy"):
        selection_file_states(corpus_in(tmp_path, keep_scores=["unused"]).select)
