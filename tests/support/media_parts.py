"""Reads what the media stage has stored of a part, and checks it."""

from __future__ import annotations

import tarfile
from pathlib import Path

import cv2
import numpy as np

from mmdata.documents import DOCUMENT_MEDIA
from mmdata.samples import MEDIA, STATUSES
from mmdata.storage.tables import read_table
from tests.support.hostile_server import picture


def records(part, slice_name="0000") -> list[dict]:
    """The media records of a slice, in the order of the rows that were given."""
    rows = read_table(part.workspace.table(part.name, "rows", slice_name)).to_pylist()
    table = read_table(part.workspace.table(part.name, "media", slice_name))
    assert table.schema.remove_metadata() in (MEDIA, DOCUMENT_MEDIA)
    assert table["uid"].to_pylist() == [row["uid"] for row in rows]
    number = {row["uid"]: row["row"] for row in rows}
    return sorted(table.to_pylist(), key=lambda record: number[record["uid"]])


def by_url(part, slice_name="0000") -> dict[str, dict]:
    """The media records of a slice by URL."""
    rows = read_table(part.workspace.table(part.name, "rows", slice_name)).to_pylist()
    url_by_uid = {row["uid"]: row["url"] for row in rows}
    return {url_by_uid[record["uid"]]: record for record in records(part, slice_name)}


def outcomes(part) -> list[str]:
    """The error class of each row, or its status if it has none."""
    return [record["error"] or record["status"] for record in records(part)]


def members(part, record: dict) -> dict[str, bytes]:
    """The stored files of a record by extension, checked against the names in the tar."""
    data = tar_of(part).read_bytes()
    with tarfile.open(tar_of(part)) as archive:
        by_offset = {member.offset_data: member for member in archive}
    content = {}
    for stored in [record, *(record["further"] or [])] if record["ext"] else []:
        member = by_offset[stored["offset"]]
        assert (member.name.partition(".")[2], member.size) == (stored["ext"], stored["length"])
        content[stored["ext"]] = data[stored["offset"] : stored["offset"] + stored["length"]]
    return content


def tar_of(part, slice_name="0000") -> Path:
    """The tar that a slice's table addresses."""
    table = read_table(part.workspace.table(part.name, "media", slice_name))
    return Path(part.workspace.media_tar(part.name, slice_name, table.schema.metadata).path)


def assert_whole(part, slice_name="0000") -> int:
    """Every row has its record, and every success addresses the picture of its own URL. Returns the successes."""
    rows = read_table(part.workspace.table(part.name, "rows", slice_name)).to_pylist()
    table = read_table(part.workspace.table(part.name, "media", slice_name))
    assert table.schema.remove_metadata() in (MEDIA, DOCUMENT_MEDIA)
    assert table["uid"].to_pylist() == [row["uid"] for row in rows]
    tar = tar_of(part, slice_name)
    data = tar.read_bytes()
    successes = 0
    with tarfile.open(tar) as archive:
        members = {member.offset_data: member for member in archive}
    assert [member.name for member in members.values()] == sorted(member.name for member in members.values())
    assert all((m.mtime, m.uid, m.gid, m.mode) == (0, 0, 0, 0o644) for m in members.values())
    addressed = set()
    for row, record in zip(rows, table.to_pylist(), strict=True):
        assert record["status"] in STATUSES
        assert (record["status"] == "success") == (record["error"] is None)
        if record["status"] != "success":
            assert record["offset"] is None
            continue
        successes += 1
        addressed.add(record["offset"])
        assert members[record["offset"]].size == record["length"]
        image = cv2.imdecode(
            np.frombuffer(data[record["offset"] : record["offset"] + record["length"]], np.uint8), cv2.IMREAD_COLOR
        )
        number = int(row["url"].rsplit("/", 1)[1].partition("?")[0])
        assert np.allclose(image.mean((0, 1)), picture(number)[0, 0], atol=3), f"{row['url']} has another's picture"
        assert image.shape[:2] == (record["height"], record["width"])
    assert addressed == set(members), "the tar holds what no row addresses"
    return successes
