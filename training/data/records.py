"""Instruction JSONL as training reads it: a memory-mapped index of its lines and of the samples that they show."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from upath import UPath

from mmdata.errors import DataError, UserError
from mmdata.samples import estimate_tokens
from training.data.conversations import Conversation, Member, parse_member_path, parse_record, with_fewer_frames
from training.data.index_cache import RowTable, build_once, mark_complete, read_mark
from training.data.range_reader import Range, RangeReader
from training.data.sample_index import TrainingRelease
from training.data.uid_index import UidIndex

MAX_IMAGES, MAX_SOUNDS = 32, 1  # per record
RECORD = np.dtype(
    [
        ("offset", "<i8"),  # of the line in the JSONL, in bytes
        ("length", "<i8"),  # of the line, in bytes
        ("first", "<i8"),  # position of the record's first sample in `Records.rows`
        ("tokens", "<u4"),  # of all turns, estimated
        ("images", "u1"),
        ("sounds", "u1"),
        ("samples", "u1"),  # that the media come from; a clip's frames and sound come from one sample
    ]
)
"""A row of the memory-mapped index of a JSONL file: 31 bytes, and 8 for each of the record's samples."""

_BATCH_LINES = 50_000  # lines in memory at once


@dataclass(frozen=True, slots=True)
class MediaLimits:
    """Which media of a record a model takes."""

    frames: int = 8  # at most so many frames of all clips together; embedded frames (data URIs) are not limited
    hears: bool = True  # whether the model has a sound tower; if not, records with sound are left out
    pictures: int = MAX_IMAGES  # records with more pictures (or frames) have no room in a row and are left out


@dataclass(frozen=True)
class Records:
    """An indexed instruction file."""

    path: UPath  # of the JSONL
    index: np.ndarray  # memory-mapped rows of RECORD, in the file's order
    rows: np.ndarray  # memory-mapped int64; row numbers of samples in the split, one record's after another's
    lines: RangeReader  # of the JSONL
    limits: MediaLimits  # on the media of a record
    left_out: int  # records that are not in the index: without a text answer, of another task, or over the limits

    def rows_of(self, at: int) -> np.ndarray:
        """Row numbers of a record's samples, in the order of `Conversation.keys`."""
        first = int(self.index[at]["first"])
        return self.rows[first : first + int(self.index[at]["samples"])]

    def expect(self, indices: Sequence[int]) -> None:
        """Say which records are read next, in order: an object store is then asked for many at once."""
        self.lines.expect(map(self._line, indices))

    def _line(self, at: int) -> Range:
        return Range(self.path.name, int(self.index[at]["offset"]), int(self.index[at]["length"]))

    def record(self, at: int) -> dict[str, Any]:
        """A record as it is written. Raises DataError if the file is not the one that was indexed."""
        line = self._line(at)
        data = self.lines.read(line)
        try:
            return dict(json.loads(data))
        except ValueError:
            raise DataError(
                f"{self.path}: at byte {line.offset} there is no record: the file was edited. Remedy: `mmdata verify`."
            ) from None


def open_records(
    release: TrainingRelease, form: str, split: str, tasks: list[str] | None, limits: MediaLimits | None = None
) -> Records:
    """Index an instruction file, or open the index that was made before.

    Args:
        form: record, llava or chat.
        tasks: only records of these tasks are taken; None: of all tasks.

    Raises:
        UserError: the release has no such file.
        DataError: the file is not the manifest's, or a line is not a record, or it names a picture that is not of this
            release; names the line.
    """
    path = _records_path(release, form, split)
    expected = release.release.manifest["files"][path.name]
    if not path.exists() or path.stat().st_size != expected["bytes"]:
        raise DataError(f"{path}: is missing or not the one of the manifest. Remedy: `mmdata verify` the release.")
    limits = limits or MediaLimits()
    folder = release.cache / f"records-{_cache_name(expected['sha256'], tasks, limits)}"
    chosen = _Filter(None if tasks is None else frozenset(tasks), limits)
    build_once(folder, lambda draft: _write_index(path, expected["sha256"], release, split, chosen, draft))
    index, rows = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("records", "samples"))
    return Records(path, index, rows, RangeReader(path.parent), limits, read_mark(folder)["left_out"])


def _records_path(release: TrainingRelease, form: str, split: str) -> UPath:
    """The instruction file of a form and a split. Raises UserError if the release has none."""
    names = [name for name in release.release.manifest["files"] if name.startswith("instruct-")]
    if (name := f"instruct-{form}-{split}.jsonl") not in names:
        raise UserError(
            f"release {release.id} has no {name}; it has: {', '.join(sorted(names)) or 'no instructions'}. "
            "Remedy: `instruct.formats` in corpus.yaml, or --stage instruct without this release."
        )
    return release.release.folder / name


def _cache_name(sha256: str, tasks: list[str] | None, limits: MediaLimits) -> str:
    """Names the index by all that decides its content. The text is fixed: another one would index every file again."""
    look = f"Look(frames={limits.frames}, hears={limits.hears}, pictures={limits.pictures})"
    text = f"{sha256} {sorted(tasks) if tasks is not None else 'all'} {look} {RECORD}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class _Filter:
    """Decides which records are indexed."""

    tasks: frozenset[str] | None
    limits: MediaLimits

    def conversation(self, record: dict[str, Any]) -> Conversation | None:
        """The record's conversation; None if it is left out. Raises ValueError as `parse_record`."""
        conversation = parse_record(record)
        if conversation is None or (self.tasks is not None and record.get("task") not in self.tasks):
            return None
        if conversation.sounds and not self.limits.hears:
            return None
        conversation = with_fewer_frames(conversation, self.limits.frames)
        has_room = len(conversation.images) <= self.limits.pictures or self.limits.pictures == MAX_IMAGES
        return conversation if has_room else None


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of the JSONL that is indexed. Args: number: from 1; offset, length: in bytes."""

    number: int
    offset: int
    length: int
    conversation: Conversation


def _write_index(path: UPath, sha256: str, release: TrainingRelease, split: str, chosen: _Filter, folder: Path) -> None:
    samples, shards = release.uid_index(split), set(release.shards)
    left_out = 0
    digest = hashlib.sha256()
    with (
        RowTable(folder / "records.npy", RECORD) as records,
        RowTable(folder / "samples.npy", np.dtype("<i8")) as sample_rows,
    ):
        for batch in _line_batches(path):
            lines = []
            for number, offset, data in batch:
                digest.update(data)
                try:
                    conversation = chosen.conversation(json.loads(data))
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    raise DataError(
                        f"{path}: line {number}: not an instruction record ({error}). Remedy: `mmdata verify`."
                    ) from None
                if conversation is None:
                    left_out += 1
                else:
                    _check_counts(conversation, path, number)
                    lines.append(_Line(number, offset, len(data), conversation))
            rows, of_records = _index_rows(lines, samples, shards, path, sample_rows.count)
            records.append(rows)
            sample_rows.append(of_records)
        if digest.hexdigest() != sha256:
            raise DataError(
                f"{path}: is not the one of the manifest: it was edited. Remedy: `mmdata verify` the release."
            )
    mark_complete(folder, {"records": records.count, "left_out": left_out})


def _line_batches(path: UPath) -> Iterator[list[tuple[int, int, bytes]]]:
    """(number, offset, line) of all lines, in lists of bounded length."""
    offset, lines = 0, []
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            lines.append((number, offset, line))
            offset += len(line)
            if len(lines) == _BATCH_LINES:
                yield lines
                lines = []
    yield lines


def _check_counts(conversation: Conversation, path: UPath, number: int) -> None:
    for kind, media, most in (
        ("pictures", conversation.images, MAX_IMAGES),
        ("sounds", conversation.sounds, MAX_SOUNDS),
    ):
        if len(media) > most:
            raise DataError(
                f"{path}: line {number}: {len(media)} {kind}, over {most}. "
                "Remedy: leave its task out of instruct.tasks of the corpus."
            )


def _index_rows(
    lines: list[_Line], samples: UidIndex, shards: set[str], path: UPath, first: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of RECORD, and int64 row numbers of the samples that their media come from.

    Args: first: number of samples of the records before these.
    Raises DataError: a medium is not of this release or split.
    """
    rows = np.zeros(len(lines), RECORD)
    if not lines:
        return rows, np.zeros(0, np.int64)
    rows["offset"] = [line.offset for line in lines]
    rows["length"] = [line.length for line in lines]
    rows["images"] = [len(line.conversation.images) for line in lines]
    rows["sounds"] = [len(line.conversation.sounds) for line in lines]
    texts = pl.DataFrame({"text": ["\n".join(turn.text for turn in line.conversation.turns) for line in lines]})
    rows["tokens"] = texts.select(estimate_tokens(pl.col("text")))["text"].to_numpy()
    keys: list[tuple[int, int, int, int]] = []
    for at, line in enumerate(lines):
        members: dict[str, Member] = {}
        for medium in (*line.conversation.images, *line.conversation.sounds):
            if medium.startswith("data:"):
                continue
            member = parse_member_path(medium)
            if member is None or member.shard not in shards:
                raise DataError(
                    f"{path}: line {line.number}: {medium[:120]!r} is no member of a shard of this release. "
                    "Remedy: `mmdata verify` the release."
                )
            members.setdefault(member.key, member)
        rows["samples"][at] = len(members)
        keys += [(int(m.uid[:16], 16), int(m.uid[16:], 16), m.copy, line.number) for m in members.values()]
    rows["first"] = first + np.cumsum(rows["samples"], dtype=np.int64) - rows["samples"]
    schema = {"high": pl.UInt64, "low": pl.UInt64, "copy": pl.UInt16, "line": pl.Int64}
    table = pl.DataFrame(keys, schema, orient="row")
    sample_rows = samples.find(table)
    if (sample_rows < 0).any():
        number = table["line"][int(np.argmin(sample_rows))]
        raise DataError(
            f"{path}: line {number}: its sample is not in the index of this release's split. "
            "Remedy: `mmdata verify` the release."
        )
    return rows, sample_rows
