"""Instruction JSONL as training reads it: a memory-mapped index of its lines and of the samples that they show."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from upath import UPath

from mmdata.errors import DataError
from mmdata.samples import estimate_tokens
from mmdata.storage.atomic import is_local
from training.data.conversations import Conversation, Member, member_of, parse_record, thinned
from training.data.release_index import TrainingRelease, digest_of, find_rows, publish_folder, read_range, records_path

MAX_IMAGES, MAX_SOUNDS = 32, 1
RECORD = np.dtype(
    [
        ("offset", "<i8"),  # of the line in the JSONL
        ("length", "<i8"),
        ("first", "<i8"),  # of its samples among those of all records, see `Records.rows_of`
        ("tokens", "<u4"),  # estimate over all turns
        ("images", "u1"),
        ("sounds", "u1"),
        ("samples", "u1"),  # that its media are of: a clip's frames and sound are of one
    ]
)
"""A row of the memory-mapped index of a JSONL file: 31 bytes, and 8 for each of its samples."""

_AT_ONCE = 50_000


@dataclass(frozen=True, slots=True)
class Look:
    """What of a record a model takes.

    Args:
        frames: of a clip, or of several clips together, at most; frames inside the record (data URIs) all stay.
        hears: it has a sound tower; else records with sound are left out.
        pictures: that have room in a row beside words; records that show more, frames too, are left out.
    """

    frames: int = 8
    hears: bool = True
    pictures: int = MAX_IMAGES


@dataclass(frozen=True)
class Records:
    """An indexed instruction file.

    Args:
        path: of the JSONL.
        index: memory-mapped rows of RECORD, in the file's order.
        rows: memory-mapped int64: the samples of all records, one record's after another's.
        look: what of them is taken.
        left_out: records without a text answer, of tasks that were not asked for, with sound for who hears none, or
            with more pictures than have room.
    """

    path: UPath
    index: np.ndarray
    rows: np.ndarray
    look: Look
    left_out: int

    def rows_of(self, at: int) -> np.ndarray:
        """The rows of a record's samples in the split's: those of `Conversation.keys`."""
        first = int(self.index[at]["first"])
        return self.rows[first : first + int(self.index[at]["samples"])]

    def conversation(self, record: dict[str, Any]) -> Conversation | None:
        """A record's turns and media, as far as they are taken. Raises ValueError as `parse_record`."""
        found = parse_record(record)
        return None if found is None else thinned(found, self.look.frames)

    def record(self, at: int) -> dict[str, Any]:
        """The record of a row of the index. Raises DataError: the file is not the one that was indexed."""
        offset, length = int(self.index[at]["offset"]), int(self.index[at]["length"])
        if is_local(self.path):
            with Path(self.path.path).open("rb") as file:
                file.seek(offset)
                data = file.read(length)
        else:
            data = read_range(self.path, offset, length)
        try:
            return dict(json.loads(data))
        except ValueError:
            raise DataError(f"{self.path}: at byte {offset} stands no record: the file was edited") from None


def open_records(
    release: TrainingRelease, form: str, split: str, tasks: list[str] | None, look: Look | None = None
) -> Records:
    """Index an instruction file, or open the index made before.

    Raises:
        UserError: the release has no such file.
        DataError: the file is not the manifest's, a line is no record, or it names a picture that is not of this
            release; names the line.
    """
    path = records_path(release, form, split)
    expected = release.release.manifest["files"][path.name]
    if not path.exists() or path.stat().st_size != expected["bytes"]:
        raise DataError(f"{path}: is missing or not the one of the manifest. Remedy: `mmdata verify` the release.")
    look = look or Look()
    name = digest_of(f"{expected['sha256']} {sorted(tasks) if tasks is not None else 'all'} {look} {RECORD}")
    folder = release.cache / f"records-{name}"
    if not (folder / "done.json").exists():
        wanted = _Wanted(tasks, look)
        publish_folder(folder, lambda draft: _write_index(path, expected["sha256"], release, split, wanted, draft))
    left_out = json.loads((folder / "done.json").read_text())["left_out"]
    index, rows = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("records", "samples"))
    return Records(path, index, rows, look, left_out)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Which records are taken, and what of them."""

    tasks: list[str] | None
    look: Look

    def conversation(self, record: dict[str, Any]) -> Conversation | None:
        """Raises ValueError as `parse_record`."""
        found = parse_record(record)
        if found is None or (self.tasks is not None and record.get("task") not in self.tasks):
            return None
        if found.sounds and not self.look.hears:
            return None
        found = thinned(found, self.look.frames)
        return found if len(found.images) <= self.look.pictures or self.look.pictures == MAX_IMAGES else None


def _write_index(path: UPath, sha256: str, release: TrainingRelease, split: str, wanted: _Wanted, folder: Path) -> None:
    samples = release.samples(split)
    shards = set(release.shards)
    count = named = left_out = 0
    digest = hashlib.sha256()
    with (folder / "rows").open("wb") as out, (folder / "named").open("wb") as rows_out:
        for lines in _batches(path):
            kept = []
            for number, offset, line in lines:
                digest.update(line)
                try:
                    conversation = wanted.conversation(json.loads(line))
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    raise DataError(f"{path}: line {number}: not an instruction record ({error})") from None
                if conversation is None:
                    left_out += 1
                    continue
                for media, most, what in (
                    (conversation.images, MAX_IMAGES, "pictures"),
                    (conversation.sounds, MAX_SOUNDS, "sounds"),
                ):
                    if len(media) > most:
                        raise DataError(f"{path}: line {number}: {len(media)} {what}, over {most}")
                kept.append((number, offset, len(line), conversation))
            rows, own = _index_rows(kept, samples, shards, path, named)
            rows.tofile(out)
            own.tofile(rows_out)
            count, named = count + len(rows), named + len(own)
    if digest.hexdigest() != sha256:
        raise DataError(f"{path}: is not the one of the manifest: it was edited. Remedy: `mmdata verify` the release.")
    for name, raw, kind, size in (("records", "rows", RECORD, count), ("samples", "named", np.dtype("<i8"), named)):
        table = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", kind, (size,))
        if size:
            table[:] = np.memmap(folder / raw, kind, "r")
        table.flush()
        (folder / raw).unlink()
    (folder / "done.json").write_text(json.dumps({"records": count, "left_out": left_out}))


def _batches(path: UPath) -> Iterator[list[tuple[int, int, bytes]]]:
    offset, lines = 0, []
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            lines.append((number, offset, line))
            offset += len(line)
            if len(lines) == _AT_ONCE:
                yield lines
                lines = []
    yield lines


def _index_rows(
    kept: list[tuple[int, int, int, Conversation]], samples: np.ndarray, shards: set[str], path: UPath, named: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of RECORD, and the samples that their media are of.

    Args:
        named: samples of the records before.
    """
    rows = np.zeros(len(kept), RECORD)
    if not kept:
        return rows, np.zeros(0, np.int64)
    rows["offset"] = [offset for _, offset, _, _ in kept]
    rows["length"] = [length for _, _, length, _ in kept]
    rows["images"] = [len(conversation.images) for *_, conversation in kept]
    rows["sounds"] = [len(conversation.sounds) for *_, conversation in kept]
    texts = pl.DataFrame({"text": ["\n".join(turn.text for turn in conversation.turns) for *_, conversation in kept]})
    rows["tokens"] = texts.select(estimate_tokens(pl.col("text")))["text"].to_numpy()
    wanted: list[tuple[int, int, int, int]] = []
    for at, (number, _, _, conversation) in enumerate(kept):
        own: dict[str, Member] = {}
        for place in (*conversation.images, *conversation.sounds):
            if place.startswith("data:"):
                continue
            member = member_of(place)
            if member is None or member.shard not in shards:
                raise DataError(f"{path}: line {number}: {place[:120]!r} is no member of a shard of this release")
            own.setdefault(member.key, member)
        rows["samples"][at] = len(own)
        wanted += [(int(one.uid[:16], 16), int(one.uid[16:], 16), one.copy, number) for one in own.values()]
    rows["first"] = named + np.cumsum(rows["samples"], dtype=np.int64) - rows["samples"]
    schema = {"high": pl.UInt64, "low": pl.UInt64, "copy": pl.UInt16, "number": pl.Int64}
    keys = pl.DataFrame(wanted, schema, orient="row")
    found = find_rows(samples, keys.select("high", "low", "copy"))
    if (found < 0).any():
        number = keys["number"][int(np.argmin(found))]
        raise DataError(f"{path}: line {number}: its sample is not in the index of this release's split")
    return rows, found.astype(np.int64)
