"""A release as training reads it: a memory-mapped index of fixed-size rows, and range reads of samples."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec import filesystem
from upath import UPath

from mmdata.errors import DataError, UserError
from mmdata.publish.release import sha256_of
from mmdata.releases.manifest import Release, manifest_digest, open_release
from mmdata.samples import sample_key, uid_words
from mmdata.storage.atomic import is_local

SAMPLE = np.dtype(
    [
        ("high", "<u8"),  # the uid's two words
        ("low", "<u8"),
        ("offset", "<i8"),  # in the shard
        ("length", "<i8"),
        ("shard", "<u4"),  # number in the manifest's list
        ("tokens", "<u4"),  # estimate of the caption's
        ("copy", "<u2"),
        ("media", "u1"),  # bit of each of MEDIA
    ]
)
"""A row of the memory-mapped index, 43 bytes."""

MEDIA = ("image", "video", "audio")
SPLITS = ("train", "validation")
_BATCH_ROWS = 200_000
_COLUMNS = ["uid", "shard", "offset", "length", "signature", "split", "tokens", "copy"]


class BadSample(Exception):
    """A sample that cannot be read; the reader takes another in its place and counts it."""


@dataclass(frozen=True)
class TrainingRelease:
    """An opened release, checked against its manifest.

    Args:
        release: its manifest.
        shards: names, in the manifest's order; rows of the index point into it.
        cache: local folder of the memory-mapped files.
    """

    release: Release
    shards: tuple[str, ...]
    cache: Path

    @property
    def id(self) -> str:
        return self.release.id

    @property
    def digest(self) -> str:
        return str(self.release.manifest["digest"])

    def samples(self, split: str) -> np.ndarray:
        """The split's samples, memory-mapped, in shard order: a structured array of SAMPLE."""
        return np.load(self.cache / f"{split}.npy", mmap_mode="r")


def open_training_release(path: str, cache: Path) -> TrainingRelease:
    """Open a release for training: its manifest, index and shards must be the ones that belong together.

    Args:
        path: a release's folder, `releases/latest`, or a workspace.
        cache: local folder for memory-mapped files; a release takes 43 bytes a sample there.

    Raises:
        UserError: there is no release at the path.
        DataError: the manifest was edited, the index is not the manifest's, or a shard is missing or has another size.
    """
    release = open_release(path)
    manifest = release.manifest
    if manifest_digest(manifest) != manifest["digest"]:
        raise DataError(f"{release.folder / 'manifest.json'}: its content does not match its digest: it was edited")
    _check_sizes(release)
    shards = tuple(shard["name"] for shard in manifest["shards"])
    own = cache / str(manifest["digest"])[:16]
    if not (own / "done.json").exists():
        index = release.folder / "index.parquet"
        expected = manifest["files"]["index.parquet"]
        if not index.exists() or sha256_of(index) != (expected["sha256"], expected["bytes"]):
            raise DataError(f"{index}: is missing or not the one of the manifest. Remedy: `mmdata verify` the release.")
        sizes = [shard["bytes"] for shard in manifest["shards"]]
        publish_folder(own, lambda folder: _write_samples(index, shards, sizes, folder))
    return TrainingRelease(release, shards, own)


def _check_sizes(release: Release) -> None:
    """Every shard is there, and as long as the manifest says: one listing, not a read."""
    folder = release.workspace.shards_dir
    folder.fs.invalidate_cache(folder.path)  # object stores' clients remember listings of before
    try:
        listed = folder.fs.ls(folder.path, detail=True)
    except FileNotFoundError:
        listed = []
    found = {entry["name"].rstrip("/").rpartition("/")[2]: entry["size"] for entry in listed}
    for shard in release.manifest["shards"]:
        if (size := found.get(shard["name"])) != shard["bytes"]:
            what = "is not there" if size is None else f"has {size} bytes, the manifest says {shard['bytes']}"
            raise DataError(f"{folder / shard['name']}: {what}. Remedy: `mmdata verify`, then restore it from a copy.")


def publish_folder(target: Path, fill: Any) -> None:
    """Fill a folder under a temporary name and rename it; who comes second throws its own away."""
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".tmp-", dir=target.parent))
    try:
        fill(draft)
        draft.rename(target)
    except OSError:
        if not (target / "done.json").exists():
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _write_samples(index: UPath, shards: tuple[str, ...], sizes: list[int], folder: Path) -> None:
    numbers = pl.DataFrame({"shard": shards, "number": np.arange(len(shards), dtype=np.uint32), "bytes": sizes})
    length, room = pl.col("length"), pl.col("bytes") - pl.col("length")
    outside = ~((pl.col("offset") >= 0) & (length > 0) & (room >= 0) & (pl.col("offset") <= room)).fill_null(False)
    files = {split: (folder / f"{split}.rows").open("wb") for split in SPLITS}
    counts = dict.fromkeys(SPLITS, 0)
    with index.open("rb") as file:
        for batch in pq.ParquetFile(file).iter_batches(_BATCH_ROWS, columns=_COLUMNS):
            frame = pl.DataFrame(pa.Table.from_batches([batch])).join(numbers, "shard", "left", maintain_order="left")
            if frame["number"].null_count():
                strange = frame.filter(pl.col("number").is_null())["shard"][0]
                raise DataError(f"{index}: names {strange}, which is not of this release")
            if len(wrong := frame.filter(outside)):
                row = wrong.row(0, named=True)
                raise DataError(
                    f"{index}: sample {row['uid']} is said to lie at byte {row['offset']}, {row['length']} bytes long, "
                    f"in {row['shard']}, which has {row['bytes']} bytes. Remedy: `mmdata verify` the release."
                )
            for split in SPLITS:
                rows = _rows(frame.filter(pl.col("split") == split))
                rows.tofile(files[split])
                counts[split] += len(rows)
    for split, rows_file in files.items():
        rows_file.close()
        raw = folder / f"{split}.rows"
        out = np.lib.format.open_memmap(folder / f"{split}.npy", "w+", SAMPLE, (counts[split],))
        if counts[split]:
            out[:] = np.memmap(raw, SAMPLE, "r")
        out.flush()
        raw.unlink()
    (folder / "done.json").write_text(json.dumps(counts))


def _rows(frame: pl.DataFrame) -> np.ndarray:
    rows = np.empty(len(frame), SAMPLE)
    if len(frame):
        rows["high"], rows["low"] = uid_words(frame["uid"])
    for name in ("offset", "length", "tokens", "copy"):
        rows[name] = frame[name].to_numpy()
    rows["shard"] = frame["number"].to_numpy()
    held = frame["signature"].str.split("+")
    rows["media"] = sum((held.list.contains(name).to_numpy().astype(np.uint8) << bit) for bit, name in enumerate(MEDIA))
    return rows


def row_key(row: np.void) -> str:
    """The key in the shard of a row of the index."""
    return sample_key(row_uid(row), int(row["copy"]))


def row_uid(row: np.void) -> str:
    return f"{int(row['high']):016x}{int(row['low']):016x}"


class SampleReader:
    """Range reads: one sample, one read, from local disk or an object store. Safe to hand to worker processes."""

    def __init__(self, release: TrainingRelease) -> None:
        self._folder = release.release.workspace.shards_dir
        self._shards = release.shards
        self._handles: dict[int, int] = {}
        self._owner = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handles": {}, "_owner": -1}

    def __del__(self) -> None:
        for handle in self._handles.values():  # a forked process has its own descriptors
            os.close(handle)

    def members(self, row: np.void) -> Mapping[str, bytes]:
        """A sample's members, by extension: `jpg`, `txt`, `json`, `000.jpg`, `flac`.

        Raises:
            DataError: what lies there is not this sample: a shard that is gone, truncated or of another release.
        """
        key = row_key(row)
        data = self._read(int(row["shard"]), int(row["offset"]), int(row["length"]))
        found: dict[str, bytes] = {}
        at = 0
        while at + 512 <= len(data):
            name = data[at : at + 100].rstrip(b"\0").decode("utf-8", "replace")
            digits = data[at + 124 : at + 135].strip(b"\0 ")
            stem, dot, ext = name.partition(".")
            if stem != key or not dot or ext in found or data[at + 156] not in b"0\0" or digits.strip(b"01234567"):
                break
            size = int(digits or b"0", 8)
            found[ext] = data[at + 512 : at + 512 + size]
            at += 512 + -(-size // 512) * 512
        if at != row["length"] or at != len(data):
            where = int(row["offset"]) + min(at, len(data))
            raise DataError(
                f"{self._folder / self._shards[row['shard']]}: at byte {where} stands no member of "
                f"sample {key}: the shard is truncated or of another release. Remedy: `mmdata verify`."
            )
        return found

    def _read(self, shard: int, offset: int, length: int) -> bytes:
        path = self._folder / self._shards[shard]
        try:
            return self._range(path, shard, offset, length)
        except FileNotFoundError:
            raise DataError(f"{path}: is no longer there. Remedy: `mmdata verify`, then restore it.") from None

    def _range(self, path: UPath, shard: int, offset: int, length: int) -> bytes:
        if not is_local(path):
            return read_range(path, offset, length)
        if self._owner != os.getpid():  # a fork shares file descriptors, harmlessly for pread, but not their dict
            self._handles, self._owner = dict(self._handles), os.getpid()
        if (handle := self._handles.get(shard)) is None:
            if len(self._handles) >= 256:
                os.close(self._handles.pop(next(iter(self._handles))))
            handle = self._handles[shard] = os.open(path.path, os.O_RDONLY)
        return os.pread(handle, length, offset)


def read_range(path: UPath, offset: int, length: int) -> bytes:
    """Bytes of an object, fewer where it ends before: as a local file answers.

    The client is asked for each time: one that was used before a fork does not work in the workers after it.
    """
    client = filesystem(path.protocol, **path.storage_options)
    try:
        return bytes(client.cat_file(path.path, start=offset, end=offset + length))
    except OSError:
        client.invalidate_cache(path.path)
        if client.size(path.path) > offset:
            raise
        return b""


def find_rows(samples: np.ndarray, keys: pl.DataFrame) -> np.ndarray:
    """Row numbers of samples by uid and copy, -1 where there is none.

    Args:
        keys: columns high, low (UInt64) and copy (UInt16).
    """
    known = pl.DataFrame({name: np.ascontiguousarray(samples[name]) for name in ("high", "low", "copy")})
    known = known.with_row_index("row").with_columns(pl.col("row").cast(pl.Int64))
    found = keys.join(known, on=["high", "low", "copy"], how="left", maintain_order="left")
    return found["row"].fill_null(-1).to_numpy()


def records_path(release: TrainingRelease, form: str, split: str) -> UPath:
    """The instruction file of a form and a split.

    Raises:
        UserError: the release has none; says which forms it has.
    """
    names = [name for name in release.release.manifest["files"] if name.startswith("instruct-")]
    if (name := f"instruct-{form}-{split}.jsonl") not in names:
        raise UserError(
            f"release {release.id} has no {name}; it has: {', '.join(sorted(names)) or 'no instructions'}. "
            "Remedy: `instruct.formats` in corpus.yaml."
        )
    return release.release.folder / name


def digest_of(text: str) -> str:
    """A short name by content."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
