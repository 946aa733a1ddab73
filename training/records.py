"""Instruction JSONL as training reads it: a memory-mapped index of lines, and the three forms parsed to turns."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from upath import UPath

from mmdata.errors import DataError
from mmdata.publish import is_local
from mmdata.samples import estimate_tokens
from training.release import TrainingRelease, digest_of, find_rows, publish_folder, read_range, records_path
from training.text import MEDIUM, Turn, clean

MAX_IMAGES = 4
EMBEDDED = -2  # the picture is in the record itself
RECORD = np.dtype(
    [
        ("offset", "<i8"),  # of the line in the JSONL
        ("length", "<i8"),
        ("tokens", "<u4"),  # estimate over all turns
        ("images", "u1"),
        ("rows", "<i8", (MAX_IMAGES,)),  # of the pictures in the split's samples
    ]
)
"""A row of the memory-mapped index of a JSONL file."""

_SHOWN = f"{MEDIUM}\n"  # as LLaVA writes it: the three forms of a record are one conversation
_PATH = re.compile(r"tar://([0-9a-f]{32})(?:_r(\d+))?\.[a-z.0-9]+::shards/([^/:]+\.tar)")
_AT_ONCE = 50_000


@dataclass(frozen=True, slots=True)
class Conversation:
    """A record's turns and its pictures in their order: paths into shards or data URIs."""

    turns: list[Turn]
    images: list[str] = field(default_factory=list)


def parse_record(record: dict[str, Any]) -> Conversation | None:
    """Any of the three forms (record, LLaVA, chat). None: its answer is a picture, which no text loss can learn.

    Raises:
        ValueError: it has none of the forms.
    """
    if "conversations" in record:
        return _llava(record)
    if "messages" in record:
        return _chat(record)
    if "instruction" in record:
        if record.get("output") is None:
            return None
        images = [record[name] for name in ("input_image", "reference_image") if record.get(name)]
        asked = Turn("user", _SHOWN * len(images) + clean(record["instruction"]))
        return Conversation([asked, Turn("assistant", clean(record["output"]))], images)
    raise ValueError("neither `instruction` nor `conversations` nor `messages` is there")


def _llava(record: dict[str, Any]) -> Conversation | None:
    images = record.get("image") or []
    images = [images] if isinstance(images, str) else list(images)
    turns = []
    for one in record["conversations"]:
        text = clean(one["value"]).replace("<image>", MEDIUM)
        if one["from"] == "gpt" and MEDIUM in text:
            return None
        turns.append(Turn("assistant" if one["from"] == "gpt" else "user", text))
    if (places := sum(turn.text.count(MEDIUM) for turn in turns)) != len(images):
        raise ValueError(f"{places} <image> markers for {len(images)} pictures")
    return Conversation(turns, images)


def _chat(record: dict[str, Any]) -> Conversation | None:
    turns, images = [], []
    for message in record["messages"]:
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        pictures = [part["image"] for part in parts if part["type"] == "image"]
        if message["role"] == "assistant" and pictures:
            return None
        images += pictures
        text = "".join(_SHOWN if part["type"] == "image" else clean(part["text"]) for part in parts)
        turns.append(Turn("assistant" if message["role"] == "assistant" else "user", text))
    return Conversation(turns, images)


@dataclass(frozen=True)
class Records:
    """An indexed instruction file.

    Args:
        path: of the JSONL.
        index: memory-mapped rows of RECORD, in the file's order.
        left_out: records without a text answer, or of tasks that were not asked for.
    """

    path: UPath
    index: np.ndarray
    left_out: int

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


def open_records(release: TrainingRelease, form: str, split: str, tasks: list[str] | None) -> Records:
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
    name = digest_of(f"{expected['sha256']} {sorted(tasks) if tasks is not None else 'all'}")
    folder = release.cache / f"records-{name}"
    if not (folder / "done.json").exists():
        publish_folder(folder, lambda draft: _write_index(path, expected["sha256"], release, split, tasks, draft))
    left_out = json.loads((folder / "done.json").read_text())["left_out"]
    return Records(path, np.load(folder / "records.npy", mmap_mode="r"), left_out)


def _write_index(
    path: UPath, sha256: str, release: TrainingRelease, split: str, tasks: list[str] | None, folder: Path
) -> None:
    samples = release.samples(split)
    shards = set(release.shards)
    count = left_out = 0
    digest = hashlib.sha256()
    with (folder / "rows").open("wb") as out:
        for lines in _batches(path):
            kept = []
            for number, offset, line in lines:
                digest.update(line)
                try:
                    record = json.loads(line)
                    conversation = parse_record(record)
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    raise DataError(f"{path}: line {number}: not an instruction record ({error})") from None
                if conversation is None or (tasks is not None and record.get("task") not in tasks):
                    left_out += 1
                    continue
                if len(conversation.images) > MAX_IMAGES:
                    raise DataError(f"{path}: line {number}: {len(conversation.images)} pictures, over {MAX_IMAGES}")
                kept.append((number, offset, len(line), conversation))
            rows = _index_rows(kept, samples, shards, path)
            rows.tofile(out)
            count += len(rows)
    if digest.hexdigest() != sha256:
        raise DataError(f"{path}: is not the one of the manifest: it was edited. Remedy: `mmdata verify` the release.")
    index = np.lib.format.open_memmap(folder / "records.npy", "w+", RECORD, (count,))
    if count:
        index[:] = np.memmap(folder / "rows", RECORD, "r")
    index.flush()
    (folder / "rows").unlink()
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


def _index_rows(kept: list[Any], samples: np.ndarray, shards: set[str], path: UPath) -> np.ndarray:
    rows = np.zeros(len(kept), RECORD)
    rows["rows"] = -1
    if not kept:
        return rows
    rows["offset"] = [offset for _, offset, _, _ in kept]
    rows["length"] = [length for _, _, length, _ in kept]
    rows["images"] = [len(conversation.images) for *_, conversation in kept]
    texts = pl.DataFrame({"text": ["\n".join(turn.text for turn in conversation.turns) for *_, conversation in kept]})
    rows["tokens"] = texts.select(estimate_tokens(pl.col("text")))["text"].to_numpy()
    wanted: list[tuple[int, int, int, int, int]] = []
    for at, (number, _, _, conversation) in enumerate(kept):
        for place, image in enumerate(conversation.images):
            if image.startswith("data:"):
                rows["rows"][at, place] = EMBEDDED
                continue
            found = _PATH.fullmatch(image)
            if found is None or found[3] not in shards:
                raise DataError(f"{path}: line {number}: {image[:120]!r} is no picture in a shard of this release")
            wanted.append((int(found[1][:16], 16), int(found[1][16:], 16), int(found[2] or 0), at, place))
    if wanted:
        schema = {"high": pl.UInt64, "low": pl.UInt64, "copy": pl.UInt16, "at": pl.Int64, "place": pl.Int64}
        keys = pl.DataFrame(wanted, schema, orient="row")
        sample_rows = find_rows(samples, keys.select("high", "low", "copy"))
        if (sample_rows < 0).any():
            number = kept[keys["at"][int(np.argmin(sample_rows))]][0]
            raise DataError(f"{path}: line {number}: its picture is not in the index of this release's split")
        rows["rows"][keys["at"].to_numpy(), keys["place"].to_numpy()] = sample_rows
    return rows
