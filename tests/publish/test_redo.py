"""The latest release is prepared to be made again; what is sound of it stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmdata.errors import UserError
from mmdata.publish.redo import forget_release
from mmdata.publish.verify import verify_release
from mmdata.workspace.layout import Workspace
from tests.support.workspaces import Built, build, corpus_of, release

PARTS = {"web-000000": range(20), "web-000001": range(20, 40)}


def test_only_what_is_damaged_is_deleted_and_the_same_release_comes_back(tmp_path: Path) -> None:
    built = build(str(tmp_path), PARTS)
    release_id = release(built)
    folder = tmp_path / "releases" / release_id
    damaged, *sound = sorted((tmp_path / "shards").glob("*.tar"))
    before = damaged.read_bytes()
    damaged.write_bytes(bytes(len(before)))
    (folder / "rates.json").write_text("{}")
    forget_release(built.corpus, built.workspace)
    assert not damaged.exists()
    assert all(shard.exists() for shard in sound)
    assert not (folder / "rates.json").exists()
    assert (folder / "index.parquet").exists()
    assert release(built) == release_id
    assert damaged.read_bytes() == before
    assert verify_release(str(tmp_path)).counts["samples"] == 40


def test_a_release_of_other_inputs_is_left_as_it_is(tmp_path: Path) -> None:
    built = build(str(tmp_path), PARTS)
    release_id = release(built)
    changed = Built(corpus_of(str(tmp_path), seed=3), built.workspace)
    with pytest.raises(UserError, match="its parts or settings have changed since"):
        forget_release(changed.corpus, changed.workspace)
    assert (tmp_path / "releases" / release_id / "manifest.json").exists()


def test_without_a_release_there_is_nothing_to_make_again(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no release yet\. Remedy: `mmdata build`"):
        forget_release(corpus_of(str(tmp_path)), Workspace(str(tmp_path)))
