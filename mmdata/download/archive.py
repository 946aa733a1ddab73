"""A slice's media at rest: a tar, and a table that addresses it by offset.

The tar is published before its table, the slice's stamp is taken away before both, and the table names the tar by its
SHA-256: a run that is killed in between leaves a slice to be done again, never a table beside a wrong tar.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any

import pyarrow as pa
from upath import UPath

from mmdata.errors import DataError
from mmdata.publish import atomic_path
from mmdata.tables import read_table
from mmdata.workspace import Workspace

SETTINGS_KEY = b"mmdata.settings"
"""Schema metadata of a media table: the settings its bytes were made with, so that a later run may keep them."""

TAR_KEY = b"mmdata.tar_sha256"
"""Schema metadata of a media table: SHA-256 of the tar that its offsets count in."""


def signed(table: pa.Table, settings: str, tar_sha256: str) -> pa.Table:
    """The table with the names of the settings and the tar that it belongs to."""
    return table.replace_schema_metadata({SETTINGS_KEY: settings.encode(), TAR_KEY: tar_sha256.encode()})


@dataclass(frozen=True, slots=True)
class Earlier:
    """What the slice's last whole run left behind that still holds.

    Args:
        records: media record by uid; a uid names its URL, so its record is its URL's.
        tar: the bytes they address.
    """

    records: Mapping[str, dict[str, Any]]
    tar: UPath | None

    def of(self, sharers: list[dict[str, Any]]) -> dict[str, Any] | None:
        """The record of a URL, by any of the rows that share it."""
        found = [self.records[row["uid"]] for row in sharers if row["uid"] in self.records]
        # a hash mismatch is one row's own; another row may have accepted the same bytes
        return next((record for record in found if record["status"] == "success"), found[0] if found else None)

    def open_tar(self) -> IO[bytes]:
        return self.tar.open("rb") if self.tar is not None else io.BytesIO()


def read_earlier(workspace: Workspace, part_name: str, name: str, settings: str) -> Earlier:
    """What an earlier run of a slice left: nothing, if its settings were others or its table and tar do not match."""
    tar, path = workspace.media_tar(part_name, name), workspace.table(part_name, "media", name)
    if not path.exists() or not tar.exists():
        return Earlier({}, None)
    try:
        table = read_table(path)
    except DataError:
        return Earlier({}, None)  # damaged on disk; it is about to be replaced
    metadata = table.schema.metadata or {}
    if metadata.get(SETTINGS_KEY) != settings.encode():
        return Earlier({}, None)
    with tar.open("rb") as file:
        if metadata.get(TAR_KEY) != _sha256(file).encode():
            return Earlier({}, None)  # a run was killed after it had replaced the tar
    return Earlier({record["uid"]: record for record in table.to_pylist()}, tar)


def write_tar(
    target: UPath, owners: Mapping[str, str], places: Mapping[str, tuple[IO[bytes], int, int]]
) -> tuple[dict[str, int], str]:
    """Publish the slice's tar: one member a URL, named and ordered by the first uid that owns it.

    Returns:
        The offset of each URL's first data byte, and the tar's SHA-256.
    """
    offsets: dict[str, int] = {}
    with atomic_path(target) as draft:
        with tarfile.open(draft, "w", format=tarfile.USTAR_FORMAT) as archive:
            for url in sorted(owners, key=owners.__getitem__):
                source, start, length = places[url]
                source.seek(start)
                info = tarfile.TarInfo(f"{owners[url]}.jpg")
                info.size = length
                offsets[url] = archive.offset + tarfile.BLOCKSIZE
                archive.addfile(info, io.BytesIO(source.read(length)))
        with draft.open("rb") as file:
            digest = _sha256(file)
    return offsets, digest


def _sha256(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()
