"""Paths of pictures, frames and sound in instruction records, and the bytes behind them.

A path is fsspec's chained form, relative to the workspace: `tar://<key>.jpg::shards/<name>.tar`. A data URI is the
other form. `fsspec.open("tar://<key>.jpg::<workspace>/shards/<name>.tar")` reads the same bytes.
"""

from __future__ import annotations

import base64
import binascii
import re
from functools import lru_cache

from upath import UPath

from mmdata.errors import DataError
from mmdata.storage.tar import BrokenTar, entries

_PATH = re.compile(r"tar://(?P<member>[^/:]+)::(?P<shard>shards/[^/:]+\.tar)")
_DATA = re.compile(r"data:(?:image|audio)/(?P<kind>[a-z]+);base64,(?P<data>.*)", re.DOTALL)
MIME = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp", "flac": "audio/flac"}


def member_path(key: str, ext: str, shard: str) -> str:
    """Path of a member of a sample, relative to the workspace.

    Args:
        ext: extension of the member, such as `jpg`, `003.jpg`, `flac`.
        shard: name of the shard, with or without `.tar`.
    """
    return f"tar://{key}.{ext}::shards/{shard.removesuffix('.tar')}.tar"


def read_member(path: str, workspace_root: UPath | str) -> bytes:
    """Read the picture, frame or sound that a record names.

    Args:
        path: `tar://…::shards/…` or a data URI; nothing else is opened.
        workspace_root: the folder or URL that holds `shards/`.

    Raises:
        DataError: the path is of neither form, the shard is missing, or it has no such member.
    """
    if match := _DATA.fullmatch(path):
        try:
            return base64.b64decode(match["data"], validate=True)
        except binascii.Error as error:
            raise DataError(f"{path[:60]}…: not valid base64 ({error})") from None
    match = _PATH.fullmatch(path)
    if match is None:
        raise DataError(f"{path[:200]!r}: expected `tar://<key>.<ext>::shards/<name>.tar` or a data URI")
    shard = UPath(workspace_root) / match["shard"]
    try:
        offset, length = _members(shard)[match["member"]]
        with shard.open("rb") as file:
            file.seek(offset)
            data = file.read(length)
    except FileNotFoundError:
        raise DataError(f"{shard}: no such shard. Remedy: `mmdata verify` says what else the release lacks.") from None
    except KeyError:
        raise DataError(f"{shard}: no member {match['member']!r}") from None
    if len(data) != length:
        raise DataError(f"{shard}: ends within {match['member']!r}; the shard is cut short")
    return data


def data_uri(path: str, data: bytes) -> str:
    """Bytes of a member as a data URI; the extension in its path decides the media type."""
    ext = path.partition("::")[0].rpartition(".")[2]
    return f"data:{MIME.get(ext, 'application/octet-stream')};base64,{base64.b64encode(data).decode('ascii')}"


@lru_cache(maxsize=64)
def _members(shard: UPath) -> dict[str, tuple[int, int]]:
    """Member -> offset and length of its data. Cached: a shard is named by its content and never changes."""
    try:
        with shard.open("rb") as file:
            return {entry.name: (entry.data_at, entry.size) for entry in entries(file) if entry.is_plain}
    except BrokenTar as error:
        raise DataError(f"{shard}: not a readable tar ({error})") from error
