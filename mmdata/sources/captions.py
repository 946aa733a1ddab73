"""Timed captions of videos in files: HowTo100M's one large JSON, or CSV, WebVTT and SubRip, a file a video.

The JSON holds all videos in one object and is larger than memory. One pass finds where each video's entry lies; that
index is kept in the workspace, and a part reads its videos' entries by range.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from mmdata.errors import DataError
from mmdata.fingerprint import fingerprint
from mmdata.publish import atomic_path, is_local
from mmdata.sources.problems import parse_time
from mmdata.sources.timed import Caption
from mmdata.tables import scan_tables

CHUNK_BYTES = 1 << 22
MAX_ENTRY_BYTES = 1 << 28  # of one video's captions; a longer one is a broken file
INDEX_ROWS = 100_000  # of the index in memory at once, while it is written
VIDEO_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")

_STRING = rb'"(?:[^"\\]|\\.)*+"'
_ENTRY = re.compile(
    rb"[\s,]*+(" + _STRING + rb")\s*+:\s*+(\{[^\"{}]*+(?:" + _STRING + rb"[^\"{}]*+)*+\}|null)", re.DOTALL
)
_TIMING = re.compile(r"((?:\d+:)?\d{1,2}:\d{2}[.,]\d{1,3})\s*-->\s*((?:\d+:)?\d{1,2}:\d{2}[.,]\d{1,3})")
_INDEX = pa.schema([("video_id", pa.string()), ("offset", pa.int64()), ("length", pa.int64())])


@dataclass(frozen=True)
class CaptionSource:
    """Captions by video.

    Args:
        place: a JSON file, or a template with {video_id} in it.
        cache: folder for the index of a JSON file.
    """

    place: str
    cache: UPath

    @property
    def is_template(self) -> bool:
        return "{video_id}" in self.place

    def read(self, ids: Sequence[str]) -> dict[str, list[Caption] | str]:
        """The captions of some videos, or for each the problem with them: `no_captions`, `bad_captions`.

        Raises:
            DataError: the JSON file is broken; names it and the byte.
        """
        if self.is_template:
            return {video_id: self._one_file(video_id) for video_id in ids}
        path = UPath(self.place)
        index = open_index(path, self.cache).filter(pl.col("video_id").is_in(list(ids)))
        # the last of two entries counts, as it does for every reader of JSON
        index = index.group_by("video_id").agg(pl.col("offset", "length").sort_by("offset").last())
        found = {row["video_id"]: (row["offset"], row["length"]) for row in index.collect().iter_rows(named=True)}
        texts = dict(zip(found, _ranges(path, list(found.values())), strict=True))
        return {video_id: _entry(texts[video_id]) if video_id in texts else "no_captions" for video_id in ids}

    def _one_file(self, video_id: str) -> list[Caption] | str:
        path = UPath(self.place.replace("{video_id}", video_id))
        try:
            text = path.read_bytes().decode("utf-8-sig", "replace")
        except FileNotFoundError:
            return "no_captions"
        found = _csv(text) if path.suffix.lower() == ".csv" else subtitles(text)
        return found or "no_captions"


def open_index(path: UPath, cache: UPath) -> pl.LazyFrame:
    """The index of a JSON file of captions: video_id, offset and length of its entry; made where it is not there.

    Raises:
        DataError: the file is no such JSON; names the byte.
    """
    from mmdata.sources.files import seen_state

    size, seen = seen_state(path)
    index = cache / f"{fingerprint('captions', 1, str(path), size, seen)}.parquet"
    if not index.exists():
        with atomic_path(index) as draft, pq.ParquetWriter(draft, _INDEX, compression="zstd") as writer:
            rows: list[tuple[str, int, int]] = []
            for row in entries(path):
                rows.append(row)
                if len(rows) == INDEX_ROWS:
                    writer.write_table(_table(rows))
                    rows = []
            writer.write_table(_table(rows))
    return scan_tables([index])


def entries(path: UPath) -> Iterator[tuple[str, int, int]]:
    """Each video of a JSON file of captions, and where its entry lies: id, offset, length. Streams.

    Raises:
        DataError: the file ends early or is of another shape; names the byte.
    """
    with path.open("rb") as file:
        head = file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")
        if not head.startswith(b"{"):
            raise DataError(_no_captions(path, 0))
        base = file.tell() - len(head) + 1
        buffer, at, chunk = head[1:], 0, CHUNK_BYTES
        while True:
            if found := _ENTRY.match(buffer, at):
                at = found.end()
                if found[2] != b"null":
                    yield _key(found[1], path, base), base + found.start(2), found.end(2) - found.start(2)
                continue
            more = file.read(chunk)
            if not more:
                if buffer[at:].strip() != b"}":
                    raise DataError(_no_captions(path, base + at))
                return
            if len(buffer) - at > MAX_ENTRY_BYTES:
                raise DataError(_no_captions(path, base + at))
            chunk = CHUNK_BYTES if at else 2 * chunk  # an entry longer than the buffer is not scanned again and again
            base, buffer, at = base + at, buffer[at:] + more, 0


def subtitles(text: str) -> list[Caption]:
    """Cues of WebVTT or SubRip, as far as they can be read: a timing line and what follows it up to a blank one."""
    found: list[Caption] = []
    lines: list[str] = []
    times: tuple[float, float] | None = None
    for line in [*text.splitlines(), ""]:
        timing = _TIMING.search(line)
        if timing or not line.strip():
            if times is not None:
                is_number = bool(timing and lines and lines[-1].strip().isdigit())  # of the next cue
                found.append(Caption(*times, " ".join(lines[:-1] if is_number else lines)))
            times, lines = None, []
        if timing:
            times = (_seconds(timing[1]), _seconds(timing[2]))
        elif times is not None:
            lines.append(line)
    return found


def _csv(text: str) -> list[Caption]:
    """Lines `start,end,text` under a header that names them."""
    found = []
    for row in csv.DictReader(io.StringIO(text)):
        values = {(name or "").strip().lower(): value for name, value in row.items() if isinstance(value, str)}
        found.append(Caption(_seconds(values.get("start")), _seconds(values.get("end")), values.get("text") or ""))
    return found


def _entry(data: bytes) -> list[Caption] | str:
    try:
        value: Any = json.loads(data.decode("utf-8", "replace"))
        lists = [value[name] for name in ("start", "end", "text")]
        if not all(isinstance(one, list) for one in lists) or len({len(one) for one in lists}) != 1:
            return "bad_captions"
    except (ValueError, KeyError, TypeError, RecursionError):
        return "bad_captions"
    return [Caption(_seconds(s), _seconds(e), str(t if t is not None else "")) for s, e, t in zip(*lists, strict=True)]


def _seconds(value: Any) -> float:
    """A time in seconds; NaN where it is none."""
    if isinstance(value, bool) or value is None:
        return float("nan")
    if isinstance(value, int | float):
        return float(value)
    found = parse_time(str(value))
    return float("nan") if found is None else found


def _ranges(path: UPath, places: Sequence[tuple[int, int]]) -> list[bytes]:
    if not places:
        return []
    starts, ends = [offset for offset, _ in places], [offset + length for offset, length in places]
    if not is_local(path):
        found: list[bytes] = path.fs.cat_ranges([path.path] * len(places), starts, ends, on_error="raise")
        return found
    with path.open("rb") as file:
        pieces = {}
        for start, end in sorted(zip(starts, ends, strict=True)):
            file.seek(start)
            pieces[start] = file.read(end - start)
    return [pieces[start] for start in starts]


def _table(rows: Sequence[tuple[str, int, int]]) -> pa.Table:
    columns: Mapping[str, Any] = dict(zip(_INDEX.names, zip(*rows, strict=True) if rows else ((), (), ()), strict=True))
    return pa.table({name: list(values) for name, values in columns.items()}, schema=_INDEX)


def _key(token: bytes, path: UPath, at: int) -> str:
    try:
        return str(json.loads(token.decode("utf-8", "replace")))
    except ValueError:
        raise DataError(_no_captions(path, at)) from None


def _no_captions(path: UPath, byte: int) -> str:
    return (
        f"{path}: byte {byte}: expected captions as HowTo100M's raw_caption.json has them, one object "
        '{"<video id>": {"start": […], "end": […], "text": […]}, …}; the file is cut off, or of another kind. '
        "Remedy: download it again, or correct `captions` in corpus.yaml."
    )
