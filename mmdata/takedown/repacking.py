"""Packs the media tar of a slice again, without the members of opted-out samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import IO

import numpy as np
import polars as pl
import pyarrow as pa

from mmdata.documents import DOCUMENT_MEDIA
from mmdata.optout.redact import redacted_media
from mmdata.samples import MEDIA
from mmdata.workspace.layout import Workspace
from mmdata.workspace.media_tar import SETTINGS_KEY, signed, write_tar


def repacked_media(
    workspace: Workspace, part: str, name: str, media: pa.Table, chosen: np.ndarray, by_content: np.ndarray
) -> pa.Table:
    """The media table without the opted-out samples; writes a new tar that holds only the remaining members.

    `chosen` and `by_content` are as for `redacted_media`.
    """
    new = redacted_media(media, chosen, by_content)
    addressed = pl.Series(media["offset"]).is_not_null().to_numpy() & (chosen | by_content)
    if not addressed.any():
        return new  # an earlier run has already removed the members from the tar
    metadata = media.schema.metadata or {}
    old = workspace.media_tar(part, name, metadata)
    if not old.exists():
        return new
    records = new.to_pylist()
    owners: dict[tuple[str, int], str] = {}
    members: dict[str, tuple[IO[bytes], int, int]] = {}
    with old.open("rb") as file:
        # in the order of uids: a member that several samples share is named after the first, as when it was fetched
        for record in records:
            for ext, offset, length in _members(record):
                owner = owners.setdefault((ext, offset), record["uid"])
                members[f"{owner}.{ext}"] = (file, offset, length)
        offsets, tar_sha256 = write_tar(old.parent, name, members)
    for record in records:
        placed = [
            {"ext": ext, "offset": offsets[f"{owners[ext, offset]}.{ext}"], "length": length}
            for ext, offset, length in _members(record)
        ]
        if placed:
            record.update(placed[0], further=placed[1:] or None)
    table = pa.Table.from_pylist(records, schema=DOCUMENT_MEDIA if "pictures" in media.column_names else MEDIA)
    return signed(table, metadata.get(SETTINGS_KEY, b"").decode(), tar_sha256)


def _members(record: Mapping[str, object]) -> Iterable[tuple[str, int, int]]:
    if record["ext"]:
        first = {name: record[name] for name in ("ext", "offset", "length")}
        for member in (first, *(record["further"] or [])):  # type: ignore[misc]
            yield member["ext"], member["offset"], member["length"]
