"""JSON files of a workspace: damaged ones are named, or count as missing if a build can write them again."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from upath import UPath

from mmdata.errors import DataError
from mmdata.workspace.json_files import read_derived, read_json
from mmdata.workspace.layout import SliceStamp

DAMAGED = ["", "{", "[]", "null", "[" * 200_000]


@pytest.mark.parametrize("content", DAMAGED)
def test_a_file_that_holds_no_object_is_named_with_its_remedy(tmp_path: Path, content: str) -> None:
    path = UPath(tmp_path / "catalog.json")
    assert read_json(path) is None
    path.write_text(content)
    with pytest.raises(DataError, match=r"catalog\.json: .* Remedy: delete it, then `mmdata build`"):
        read_json(path)
    with pytest.raises(DataError, match=r"catalog\.json: .* Remedy: restore it"):
        read_json(path, "Remedy: restore it")


@pytest.mark.parametrize("content", [*DAMAGED, "{}", '{"fingerprint": "0a"}', '{"unknown": 1}'])
def test_a_damaged_stamp_counts_as_missing_and_the_log_names_it(
    tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = UPath(tmp_path / "0000.json")
    path.write_text(content)
    with caplog.at_level(logging.WARNING):
        assert read_derived(path, lambda data: SliceStamp(**data)) is None
    assert "a damaged file counts as missing" in caplog.text
    path.write_text('{"fingerprint": "0a", "digest": "0b", "rows": 3}')
    assert read_derived(path, lambda data: SliceStamp(**data)) == SliceStamp("0a", "0b", 3)
