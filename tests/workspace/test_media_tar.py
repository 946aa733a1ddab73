"""The stored media of a slice: offsets lead to the bytes, and damaged or foreign results are not used again."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import pytest
from upath import UPath

from mmdata.samples import MEDIA, table_of
from mmdata.storage.tables import write_table
from mmdata.workspace.layout import Workspace
from mmdata.workspace.media_tar import read_earlier, remove_unaddressed, signed, unaddressed, write_tar

PART, UID = "web-000000", "0" * 32
BODIES = {f"{UID}.jpg": b"picture", f"{'1' * 32}.000.jpg": b"first frame", f"{'1' * 32}.flac": b"sound"}


def stored(workspace: Workspace, settings: str, bodies: dict[str, bytes] = BODIES) -> str:
    """A slice with one picture in its table; returns the SHA-256 of its tar."""
    folder = workspace.part_dir(PART) / "media"
    members = {name: (io.BytesIO(body), 0, len(body)) for name, body in bodies.items()}
    offsets, digest = write_tar(folder, "0000", members)
    row = {"uid": UID, "status": "success", "attempts": 1, "ext": "jpg", "offset": offsets[f"{UID}.jpg"], "length": 7}
    write_table(workspace.table(PART, "media", "0000"), signed(table_of([row], MEDIA), settings, digest))
    return digest


def test_offsets_address_the_bytes_in_an_ordinary_tar_named_by_its_hash(tmp_path: Path) -> None:
    source = io.BytesIO(b"..picture..sound..")
    offsets, digest = write_tar(UPath(tmp_path), "0007", {"b.flac": (source, 11, 5), "a.jpg": (source, 2, 7)})
    tar = tmp_path / f"0007-{digest[:12]}.tar"
    content = tar.read_bytes()
    assert hashlib.sha256(content).hexdigest() == digest
    assert content[offsets["a.jpg"] :][:7] == b"picture"
    assert content[offsets["b.flac"] :][:5] == b"sound"
    with tarfile.open(tar) as archive:
        assert archive.getnames() == ["a.jpg", "b.flac"]


def test_an_earlier_run_with_the_same_settings_is_used_again(tmp_path: Path) -> None:
    workspace = Workspace(str(tmp_path))
    stored(workspace, "same")
    earlier = read_earlier(workspace, PART, "0000", "same")
    record = earlier.of([{"uid": UID, "expected_sha256": None}])
    assert record is not None
    assert record.status == "success"
    assert record.offset is not None
    with earlier.open_tar() as file:
        assert file.read()[record.offset :][:7] == b"picture"


@pytest.mark.parametrize("damage", ["settings", "table", "tar", "no tar", "nothing"])
def test_an_earlier_run_that_differs_or_is_damaged_counts_for_nothing(tmp_path: Path, damage: str) -> None:
    workspace = Workspace(str(tmp_path))
    if damage != "nothing":
        digest = stored(workspace, "same")
        tar = tmp_path / "parts" / PART / "media" / f"0000-{digest[:12]}.tar"
        if damage == "table":
            workspace.table(PART, "media", "0000").write_bytes(b"not Parquet")
        if damage == "tar":
            content = bytearray(tar.read_bytes())
            content[600] ^= 1
            tar.write_bytes(content)
        if damage == "no tar":
            tar.unlink()
    earlier = read_earlier(workspace, PART, "0000", "others" if damage == "settings" else "same")
    assert earlier.records == {}
    assert earlier.of([{"uid": UID, "expected_sha256": None}]) is None
    assert earlier.open_tar().read() == b""


def test_only_tars_that_no_table_addresses_are_removed(tmp_path: Path) -> None:
    workspace = Workspace(str(tmp_path))
    old = stored(workspace, "same", {f"{UID}.jpg": b"earlier"})
    new = stored(workspace, "same")
    folder = tmp_path / "parts" / PART / "media"
    assert [tar.name for tar in unaddressed(workspace, PART, ["0000"])] == [f"0000-{old[:12]}.tar"]
    remove_unaddressed(workspace, PART, ["0000"])
    assert [tar.name for tar in folder.glob("*.tar")] == [f"0000-{new[:12]}.tar"]


def test_a_damaged_table_protects_all_tars(tmp_path: Path) -> None:
    workspace = Workspace(str(tmp_path))
    stored(workspace, "same", {f"{UID}.jpg": b"earlier"})
    stored(workspace, "same")
    workspace.table(PART, "media", "0000").write_bytes(b"not Parquet")
    assert unaddressed(workspace, PART, ["0000"]) == []
