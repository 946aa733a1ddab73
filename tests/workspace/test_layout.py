"""The workspace: stamps and the catalogue come back as they were written, and a broken file is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmdata.errors import DataError, UserError
from mmdata.workspace.json_files import read_json
from mmdata.workspace.layout import (
    TAR_KEY,
    Catalog,
    Part,
    PartStamp,
    SliceStamp,
    Workspace,
    media_tar_name,
    part_digest,
)

PART = Part("web-000000", "web", "inbox/a.parquet", 0, 10, "ab" * 32)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(str(tmp_path / "workspace"))


def test_a_new_workspace_is_empty(workspace: Workspace) -> None:
    assert workspace.catalog() == Catalog()
    assert workspace.latest() is None
    assert workspace.releases() == []
    assert workspace.part_stamp("web-000000", "rows") is None


def test_stamps_come_back_as_they_were_written(workspace: Workspace) -> None:
    of_slice = SliceStamp("f", "d", 3, {"rows": 3}, {"http_404": 1}, {"seconds": 0.5}, "2026-01-01T00:00:00+00:00")
    of_part = PartStamp("f", "d", ("0000", "0001"), 3, accepted=False, reason="too few", settings={"seed": 1})
    workspace.write_slice_stamp("web-000000", "media", "0000", of_slice)
    workspace.write_part_stamp("web-000000", "media", of_part)
    assert workspace.slice_stamp("web-000000", "media", "0000") == of_slice
    assert workspace.part_stamp("web-000000", "media") == of_part
    workspace.clear_slice_stamp("web-000000", "media", "0000")
    workspace.clear_part_stamp("web-000000", "media")
    assert workspace.slice_stamp("web-000000", "media", "0000") is None
    assert workspace.part_stamp("web-000000", "media") is None


def test_the_catalogue_comes_back_and_lists_the_live_parts(workspace: Workspace) -> None:
    gone = Part("web-000001", "web", "inbox/b.parquet", 0, 5, "cd" * 32, removed=True)
    workspace.write_catalog(Catalog(parts={PART.name: PART, gone.name: gone}))
    assert workspace.catalog().live_parts() == [PART]
    assert workspace.part("web-000001") == gone
    with pytest.raises(UserError, match="no part 'web-000002'"):
        workspace.part("web-000002")


def test_a_forgotten_stage_has_neither_stamps_nor_tables_and_other_stages_stay(workspace: Workspace) -> None:
    for stage in ("rows", "media"):
        workspace.write_part_stamp(PART.name, stage, PartStamp("f", "d", ("0000",), 1))
        workspace.write_slice_stamp(PART.name, stage, "0000", SliceStamp("f", "d", 1))
        workspace.table(PART.name, stage, "0000").write_bytes(b"table")
    workspace.forget_stage(PART.name, "media")
    assert workspace.part_stamp(PART.name, "media") is None
    assert workspace.slice_stamp(PART.name, "media", "0000") is None
    assert not workspace.table(PART.name, "media", "0000").exists()
    assert workspace.part_stamp(PART.name, "rows") is not None
    assert workspace.table(PART.name, "rows", "0000").exists()


def test_a_folder_is_a_release_once_it_holds_a_manifest(workspace: Workspace) -> None:
    for name in ("0a", "0b"):
        Path(workspace.release_dir(name).path).mkdir(parents=True)
    (workspace.release_dir("0b") / "manifest.json").write_text("{}")
    workspace.set_latest("0b")
    assert workspace.releases() == ["0b"]
    assert workspace.latest() == "0b"


@pytest.mark.parametrize(("text", "problem"), [("{", "not valid JSON"), ("[]", "expected a JSON object, found list")])
def test_a_broken_file_is_named_with_the_remedy(workspace: Workspace, text: str, problem: str) -> None:
    Path(workspace.root.path).mkdir()
    workspace.catalog_path.write_text(text)
    with pytest.raises(DataError, match=rf"catalog\.json: {problem}.*Remedy: delete it"):
        workspace.catalog()
    assert read_json(workspace.draft_path) is None


def test_the_tar_of_a_table_is_named_by_its_content(workspace: Workspace) -> None:
    digest = "0123456789abcdef" * 4
    assert media_tar_name("0003", digest) == "0003-0123456789ab.tar"
    assert workspace.media_tar(PART.name, "0003", {TAR_KEY: digest.encode()}).name == "0003-0123456789ab.tar"
    assert workspace.media_tar(PART.name, "0003", None).name == "0003.tar"


def test_a_parts_digest_depends_on_each_slice() -> None:
    digest = part_digest({"0000": "a", "0001": "b"})
    assert digest == part_digest({"0001": "b", "0000": "a"})
    assert digest != part_digest({"0000": "a", "0001": "c"})
