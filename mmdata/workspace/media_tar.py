"""The stored media of a slice: a tar, and a table that addresses it by offset.

The table and the tar's file name hold the tar's SHA-256, so a new tar never replaces an old one. The tar is published
before its table: a run that is killed in between leaves the old table and the old tar intact.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
from upath import UPath

from mmdata.errors import DataError
from mmdata.storage.atomic import atomic_path, withdraw
from mmdata.storage.tables import read_table
from mmdata.workspace.layout import TAR_KEY, Workspace, media_tar_name
from mmdata.workspace.media_record import ExpectedHashes, MediaRecord

SETTINGS_KEY = b"mmdata.settings"
"""Schema metadata of a media table: the settings that its bytes were made with."""


def signed(table: pa.Table, settings: str, tar_sha256: str) -> pa.Table:
    """The table with the settings and the SHA-256 of its tar in the schema metadata."""
    return table.replace_schema_metadata({SETTINGS_KEY: settings.encode(), TAR_KEY: tar_sha256.encode()})


@dataclass(frozen=True, slots=True)
class Earlier:
    """The results of a slice's last whole run that are still valid.

    Args:
        records: media record by uid; a uid contains its URL, so this is also the record of the URL.
        tar: the bytes that the records address.
    """

    records: Mapping[str, MediaRecord]
    tar: UPath | None

    def of(self, sharers: list[dict[str, Any]]) -> MediaRecord | None:
        """The record of a URL, from any row that shares it; None: fetch it as if for the first time.

        A hash mismatch is the verdict of one row about a file that was not stored. It stays valid while every row that
        shares the URL would refuse that file.
        """
        records = [self.records[row["uid"]] for row in sharers if row["uid"] in self.records]
        if stored := next((record for record in records if record.status == "success"), None):
            return stored
        if not records or any(records[0].is_mismatch_resolved(ExpectedHashes.of_row(row)) for row in sharers):
            return None
        return records[0]

    def open_tar(self) -> IO[bytes]:
        return self.tar.open("rb") if self.tar is not None else io.BytesIO()


def read_earlier(workspace: Workspace, part_name: str, name: str, *settings: str) -> Earlier:
    """The results of an earlier run of a slice; empty if table or tar is damaged or gone, or was made otherwise.

    Args:
        settings: fingerprints of the settings that the table may have been made with.
    """
    path = workspace.table(part_name, "media", name)
    if not path.exists():
        return Earlier({}, None)
    try:
        table = read_table(path)
    except DataError:
        return Earlier({}, None)  # damaged; this run replaces it
    metadata = table.schema.metadata or {}
    tar = workspace.media_tar(part_name, name, metadata)
    if metadata.get(SETTINGS_KEY, b"").decode() not in settings or not tar.exists():
        return Earlier({}, None)
    with tar.open("rb") as file:
        if metadata.get(TAR_KEY) != _sha256(file).encode():
            return Earlier({}, None)  # damaged: its media are fetched again
    return Earlier({row["uid"]: MediaRecord.from_row(row) for row in table.to_pylist()}, tar)


def unaddressed(workspace: Workspace, part_name: str, slices: Iterable[str]) -> list[UPath]:
    """The tars of a part that no media table addresses. Empty if a table is damaged, since its tar is then unknown."""
    folder = workspace.part_dir(part_name) / "media"
    if not folder.exists():
        return []
    addressed = set()
    for name in slices:
        path = workspace.table(part_name, "media", name)
        if path.exists():
            try:
                addressed.add(workspace.media_tar(part_name, name, read_table(path, ["uid"]).schema.metadata).name)
            except DataError:
                return []
    return sorted((tar for tar in folder.glob("*.tar") if tar.name not in addressed), key=str)


def remove_unaddressed(workspace: Workspace, part_name: str, slices: Iterable[str]) -> None:
    """Delete the tars of a part that no media table addresses any more.

    Call it before a part is fetched, not after: a release that read the tables before the last fetch finds its tars.
    """
    withdraw(*unaddressed(workspace, part_name, slices))


def write_tar(
    folder: UPath, slice_name: str, members: Mapping[str, tuple[IO[bytes], int, int]]
) -> tuple[dict[str, int], str]:
    """Publish a slice's tar with its members sorted by name, so that the members of a clip are next to each other.

    Args:
        members: name -> file, and the offset and length of the member's bytes in it.

    Returns:
        The offset of each member's first data byte, and the tar's SHA-256.
    """
    offsets: dict[str, int] = {}
    digest = ""

    def by_content(draft: Path) -> str:
        nonlocal digest
        with draft.open("rb") as file:
            digest = _sha256(file)
        return media_tar_name(slice_name, digest)

    with (
        atomic_path(folder / f"{slice_name}.tar", by_content) as draft,
        tarfile.open(draft, "w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for name in sorted(members):
            source, start, length = members[name]
            source.seek(start)
            info = tarfile.TarInfo(name)
            info.size = length
            offsets[name] = archive.offset + tarfile.BLOCKSIZE
            archive.addfile(info, io.BytesIO(source.read(length)))
    return offsets, digest


def _sha256(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()
