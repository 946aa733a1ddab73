"""Reads timed captions of videos: from the one large JSON of HowTo100M, or from a CSV, WebVTT or SubRip per video."""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from upath import UPath

from mmdata.config import Source
from mmdata.errors import DataError
from mmdata.fingerprint import file_sha256
from mmdata.sources.caption_digest import CaptionFile, files_digest, known_digests
from mmdata.sources.caption_encoding import BAD_ENCODING, decoded
from mmdata.sources.caption_index import open_index
from mmdata.sources.source_files import etag_of, seen_state
from mmdata.sources.subtitles import BAD_CAPTIONS, MAX_CAPTIONS_BYTES, read_captions, seconds, spoken_text
from mmdata.sources.timed import Caption
from mmdata.storage.atomic import is_local
from mmdata.workspace.layout import Workspace

NO_CAPTIONS = "no_captions"
"""The problem of a video without captions."""

_PLACEHOLDER = "{video_id}"


@dataclass(frozen=True)
class CaptionSource:
    """The timed captions of a source, found by video id."""

    place: str  # path of a JSON file, or a template of paths that contains {video_id}
    cache: UPath  # folder for the index of a JSON file
    encoding: str | None = None  # of captions that are not UTF-8, as for `decoded`

    @property
    def is_template(self) -> bool:
        return _PLACEHOLDER in self.place

    def state(self) -> str:
        """A text that changes when the captions may have changed: by sizes and times of change, without reading them.

        A web server cannot list its files, so there the state of a template is the template itself.

        Raises:
            DataError: no file matches the template.
            OSError: there is no such file.
        """
        if not self.is_template:
            return self._file_state()
        if self._is_on_web:
            return self.place
        count, total = 0, 0
        for name_size_version in self._listing():
            text = "\x1f".join(map(str, name_size_version)).encode("utf-8", "surrogateescape")
            digest = hashlib.blake2b(text, digest_size=16).digest()
            # a sum does not depend on the order in which the files are listed
            count, total = count + 1, (total + int.from_bytes(digest)) % 2**128
        if not count:
            raise DataError(f"{self.place}: no file matches it. Remedy: correct `captions` in corpus.yaml.")
        return f"{count} {total:032x}"

    def digest(self, may_write: bool = True) -> str:
        """The digest of the captions, which a copy of them has, too. Reads the JSON file, or the files that are new.

        The files of an object store count by their ETags.

        Args:
            may_write: whether the digests of a template's files may be kept in the cache.

        Raises:
            OSError: a file cannot be read.
        """
        path = UPath(self.place)
        if not self.is_template:
            return file_sha256(path)
        if self._is_on_web:
            return self.place
        before, after = path.path.partition(_PLACEHOLDER)[0], path.path.rpartition(_PLACEHOLDER)[2]
        files = (
            CaptionFile(name[len(before) : len(name) - len(after)], size, version)
            for name, size, version in self._listing()
            if name.isprintable()  # others cannot be the captions of a video, and may be no Unicode
        )
        if not is_local(path):
            return files_digest(files, lambda file: f"{file.size} {file.version}", known=None)
        digests = known_digests(self.cache, self.place)
        return files_digest(
            files, lambda file: file_sha256(Path(f"{before}{file.video_id}{after}")), digests, may_write
        )

    def write_index(self) -> None:
        """Write the index of a JSON file if it is missing. Raises DataError if the file is damaged."""
        if not self.is_template:
            open_index(UPath(self.place), self.cache)

    @property
    def _is_on_web(self) -> bool:
        return UPath(self.place).protocol in ("http", "https")

    def has_changed(self, state: str | None) -> bool:
        """Whether the JSON file has changed since `state`. Always False for a template, whose files are many."""
        return not self.is_template and state != self._file_state()

    def _file_state(self) -> str:
        return " ".join(map(str, seen_state(UPath(self.place))))

    def _listing(self) -> Iterator[tuple[str, int, str]]:
        """Name, size and modification time (or ETag) of each file that matches the template."""
        path = UPath(self.place)
        pattern = "*".join(map(glob.escape, path.path.split(_PLACEHOLDER)))
        if is_local(path):
            for name in glob.iglob(pattern):  # noqa: PTH207 - the pattern is absolute
                facts = os.stat(name)  # noqa: PTH116 - as the other files of a source are looked at
                yield name, facts.st_size, str(facts.st_mtime_ns)
            return
        for name, info in path.fs.glob(pattern, detail=True).items():
            yield name, int(info.get("size") or 0), etag_of(info) or str(info)

    def read(self, ids: Sequence[str]) -> dict[str, list[Caption] | str]:
        """The captions of each video, or the problem with them: `no_captions`, `bad_captions` or `bad_encoding`.

        Raises:
            DataError: the JSON file is damaged; names it and the byte.
        """
        path = UPath(self.place)
        if self.is_template:
            paths = {video_id: UPath(self.place.replace(_PLACEHOLDER, video_id)) for video_id in ids}
            parsed = {video_id: read_captions(data, path.suffix, self.encoding) for video_id, data in _contents(paths)}
        else:
            index = open_index(path, self.cache).filter(pl.col("video_id").is_in(list(ids))).collect()
            entries = _read_ranges(path, list(zip(index["offset"], index["length"], strict=True)))
            parsed = {
                video_id: _parse_json_entry(data, self.encoding)
                for video_id, data in zip(index["video_id"], entries, strict=True)
            }
        return {video_id: parsed.get(video_id) or NO_CAPTIONS for video_id in ids}


def captions_of(source: Source, workspace: Workspace) -> CaptionSource | None:
    """The timed captions of a source; None if it has no timed captions."""
    if source.captions is None:
        return None
    return CaptionSource(source.captions, workspace.root / "captions", source.captions_encoding)


def _contents(paths: dict[str, UPath]) -> Iterator[tuple[str, bytes]]:
    """The key and the bytes of each file that exists."""
    if not paths:
        return
    first_path = next(iter(paths.values()))
    if is_local(first_path):
        for key, path in paths.items():
            with suppress(FileNotFoundError), path.open("rb") as file:
                yield key, file.read(MAX_CAPTIONS_BYTES + 1)
        return
    names = {key: first_path.fs._strip_protocol(str(path)) for key, path in paths.items()}
    data_by_name = first_path.fs.cat(list(names.values()), on_error="return")
    for key, name in names.items():
        data = data_by_name[name]
        if not isinstance(data, Exception):
            yield key, data
        elif not isinstance(data, FileNotFoundError):
            raise data


def _parse_json_entry(data: bytes, encoding: str | None) -> list[Caption] | str:
    text = decoded(data, encoding)
    if text is None:
        return BAD_ENCODING
    try:
        value: Any = json.loads(text, strict=False)
        lists = [value[name] for name in ("start", "end", "text")]
    except (ValueError, KeyError, RecursionError):
        return BAD_CAPTIONS
    if not all(isinstance(values, list) for values in lists) or len({len(values) for values in lists}) != 1:
        return BAD_CAPTIONS
    return [Caption(seconds(start), seconds(end), spoken_text(text)) for start, end, text in zip(*lists, strict=True)]


def _read_ranges(path: UPath, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    """The bytes of each range (offset, length) of a file."""
    if not ranges:
        return []
    starts, ends = [offset for offset, _ in ranges], [offset + length for offset, length in ranges]
    if not is_local(path):
        data: list[bytes] = path.fs.cat_ranges([path.path] * len(ranges), starts, ends, on_error="raise")
        return data
    with path.open("rb") as file:
        pieces = {}
        for start, end in sorted(zip(starts, ends, strict=True)):
            file.seek(start)
            pieces[start] = file.read(end - start)
    return [pieces[start] for start in starts]
