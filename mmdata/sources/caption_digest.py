"""Digests of timed captions, which depend on their content only: a copy of the files has the same digest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import NamedTuple

import polars as pl
from upath import UPath

from mmdata.errors import DataError
from mmdata.fingerprint import fingerprint
from mmdata.storage.atomic import atomic_path
from mmdata.storage.tables import read_table

_SCHEMA = {"video_id": pl.String, "size": pl.Int64, "version": pl.String, "digest": pl.String}


class CaptionFile(NamedTuple):
    """The file of one video: what its name has in place of {video_id}, its size, and its modification time or ETag."""

    video_id: str
    size: int
    version: str


def files_digest(
    files: Iterable[CaptionFile], digest_of: Callable[[CaptionFile], str], known: UPath | None, may_write: bool = True
) -> str:
    """The digest of the files of all videos, whatever their folder and their times.

    Args:
        digest_of: gives the digest of the content of a video's file; is asked only for new and changed files.
        known: a table that keeps the digests from one call to the next; None: nothing is kept.
        may_write: whether new digests are written to that table.
    """
    listing = pl.DataFrame(list(files), schema={name: _SCHEMA[name] for name in CaptionFile._fields}, orient="row")
    listing = listing.join(_kept(known), on=list(CaptionFile._fields), how="left", maintain_order="left")
    digests = [kept or digest_of(CaptionFile(*file)) for *file, kept in listing.iter_rows()]
    if known is not None and may_write and listing["digest"].null_count():
        with atomic_path(known) as draft:
            listing.with_columns(digest=pl.Series(digests, dtype=pl.String)).write_parquet(draft)
    total = 0
    for video_id, digest in zip(listing["video_id"], digests, strict=True):
        hashed = hashlib.blake2b(f"{video_id}\x1f{digest}".encode(), digest_size=16).digest()
        total = (total + int.from_bytes(hashed)) % 2**128  # a sum does not depend on the order of the files
    return f"{len(listing)} {total:032x}"


def known_digests(cache: UPath, place: str) -> UPath:
    """Where the digests of the files of a template of paths are kept."""
    return cache / f"{fingerprint('caption files', place)}.files.parquet"


def _kept(known: UPath | None) -> pl.DataFrame:
    if known is not None and known.exists():
        with suppress(DataError):  # a damaged table; the files are read again
            kept = pl.from_arrow(read_table(known, list(_SCHEMA)))
            if isinstance(kept, pl.DataFrame):
                return kept.unique(list(CaptionFile._fields), keep="any")
    return pl.DataFrame(schema=_SCHEMA)
