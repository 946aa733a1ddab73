"""Timed captions of videos: HowTo100M's one large JSON, or CSV, WebVTT and SubRip, a file a video."""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
from upath import UPath

from mmdata.config import Source
from mmdata.errors import DataError
from mmdata.sources.caption_index import open_index
from mmdata.sources.source_files import etag_of, seen_state
from mmdata.sources.subtitles import BAD, read_captions, seconds
from mmdata.sources.timed import Caption
from mmdata.storage.atomic import is_local
from mmdata.workspace.layout import Workspace

NONE = "no_captions"
"""The problem of a video without captions."""

_PLACE = "{video_id}"


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
        return _PLACE in self.place

    def state(self, may_index: bool = True) -> str:
        """What changes with the captions: of a JSON file size and time of change, of a template those of all files.

        Files of a web server, which lists none, count by their template alone. Makes the index of a JSON file, so
        that what is wrong with it is known at once, unless `may_index` forbids it.

        Raises:
            DataError: the JSON file is broken, or no file fits the template.
            OSError: there is no such file.
        """
        path = UPath(self.place)
        if not self.is_template:
            state = self._file_state()
            if may_index:
                open_index(path, self.cache)
            return state
        if path.protocol in ("http", "https"):
            return self.place
        count, total = 0, 0
        for facts in self._listing():
            digest = hashlib.blake2b("\x1f".join(facts).encode("utf-8", "surrogateescape"), digest_size=16).digest()
            count, total = count + 1, (total + int.from_bytes(digest)) % 2**128  # in whatever order they are listed
        if not count:
            raise DataError(f"{self.place}: no file fits it. Remedy: correct `captions` in corpus.yaml.")
        return f"{count} {total:032x}"

    def has_changed(self, state: str | None) -> bool:
        """Whether a JSON file is another than it was in a state. Files of a template are not looked at again here."""
        return not self.is_template and state != self._file_state()

    def _file_state(self) -> str:
        return " ".join(map(str, seen_state(UPath(self.place))))

    def _listing(self) -> Iterator[tuple[str, str, str]]:
        """Name, size and time of change (or ETag) of each file of the template."""
        path = UPath(self.place)
        pattern = "*".join(map(glob.escape, path.path.split(_PLACE)))
        if is_local(path):
            for name in glob.iglob(pattern):  # noqa: PTH207 - the pattern is absolute
                facts = os.stat(name)  # noqa: PTH116 - as the other files of a source are looked at
                yield name, str(facts.st_size), str(facts.st_mtime_ns)
            return
        for name, info in path.fs.glob(pattern, detail=True).items():
            yield name, str(info.get("size")), etag_of(info) or str(info)

    def read(self, ids: Sequence[str]) -> dict[str, list[Caption] | str]:
        """The captions of some videos, or for each the problem with them: `no_captions`, `bad_captions`.

        Raises:
            DataError: the JSON file is broken; names it and the byte.
        """
        if self.is_template:
            return self._files(ids)
        path = UPath(self.place)
        index = open_index(path, self.cache).filter(pl.col("video_id").is_in(list(ids))).collect()
        texts = _ranges(path, list(zip(index["offset"], index["length"], strict=True)))
        found = dict(zip(index["video_id"], texts, strict=True))
        return {video_id: _entry(found[video_id]) if video_id in found else NONE for video_id in ids}

    def _files(self, ids: Sequence[str]) -> dict[str, list[Caption] | str]:
        paths = {video_id: UPath(self.place.replace(_PLACE, video_id)) for video_id in ids}
        told: dict[str, list[Caption] | str] = {}
        for video_id, data in _contents(paths):
            told[video_id] = NONE if data is None else read_captions(data, paths[video_id].suffix) or NONE
        return told


def captions_of(source: Source, workspace: Workspace) -> CaptionSource | None:
    """The timed captions of a source; None: it has none."""
    return CaptionSource(source.captions, workspace.root / "captions") if source.captions else None


def _contents(paths: dict[str, UPath]) -> Iterator[tuple[str, bytes | None]]:
    """What each file holds; None where there is none."""
    if not paths:
        return
    one = next(iter(paths.values()))
    if is_local(one):
        for key, path in paths.items():
            try:
                yield key, path.read_bytes()
            except FileNotFoundError:
                yield key, None
        return
    names = {key: one.fs._strip_protocol(str(path)) for key, path in paths.items()}
    found = one.fs.cat(list(names.values()), on_error="return")
    for key, name in names.items():
        data = found[name]
        if isinstance(data, FileNotFoundError):
            yield key, None
        elif isinstance(data, Exception):
            raise data
        else:
            yield key, data


def _entry(data: bytes) -> list[Caption] | str:
    try:
        value: Any = json.loads(data.decode("utf-8", "replace"), strict=False)
        lists = [value[name] for name in ("start", "end", "text")]
        if not all(isinstance(one, list) for one in lists) or len({len(one) for one in lists}) != 1:
            return BAD
    except (ValueError, KeyError, RecursionError):
        return BAD
    return [Caption(seconds(start), seconds(end), _text(text)) for start, end, text in zip(*lists, strict=True)]


def _text(value: Any) -> str:
    """Half a character of UTF-16, which JSON can write, becomes a question mark."""
    text = "" if value is None else str(value)
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


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
