"""A release as training opens it: checked against its manifest, its samples in a memory-mapped index."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from mmdata.documents import DOCUMENT
from mmdata.errors import DataError
from mmdata.publish.release import sha256_of
from mmdata.releases.manifest import Release, has_captions, manifest_digest, open_release
from mmdata.samples import GENERATED_TOKENS, sample_key, uid_words
from training.data.index_cache import RowTable, build_once, mark_complete
from training.data.uid_index import UidIndex

SAMPLE = np.dtype(
    [
        ("high", "<u8"),  # the first 64 bits of the uid
        ("low", "<u8"),  # the other 64 bits
        ("offset", "<i8"),  # in the shard, in bytes
        ("length", "<i8"),  # in bytes
        ("shard", "<u4"),  # position in the manifest's list
        ("tokens", "<u4"),  # of the caption, estimated
        ("copy", "<u2"),
        ("media", "u1"),  # one bit for each of MEDIA
        ("pictures", "u2"),  # of a document; 0 for other samples
    ]
)
"""A row of the memory-mapped index: 45 bytes."""

SAMPLE_VERSION = 2  # raise it when SAMPLE changes, so that an index of before is made anew
MEDIA = ("image", "video", "audio", DOCUMENT)
SPLITS = ("train", "validation")
_BATCH_ROWS = 200_000  # rows of index.parquet in memory at once
_COLUMNS = ["uid", "shard", "offset", "length", "signature", "split", "tokens", "copy", "frames"]


@dataclass(frozen=True)
class TrainingRelease:
    """An opened release, checked against its manifest."""

    release: Release  # its manifest
    shards: tuple[str, ...]  # names, in the manifest's order; `shard` in a row of the index is a position in it
    cache: Path  # local folder of the memory-mapped files

    @property
    def id(self) -> str:
        return self.release.id

    @property
    def digest(self) -> str:
        return str(self.release.manifest["digest"])

    def samples(self, split: str) -> np.ndarray:
        """The split's samples, memory-mapped, in shard order: a structured array of SAMPLE."""
        return np.load(self.cache / f"{split}.npy", mmap_mode="r")

    def uid_index(self, split: str) -> UidIndex:
        """Finds the rows of `samples` by uid; made when it is first asked for."""
        return UidIndex(self.samples(split), self.cache / f"{split}-by-uid")

    def generated_tokens(self, split: str) -> np.ndarray | None:
        """Estimated tokens of each sample's generated caption, uint32, memory-mapped; 0: it has none beside its text.

        None: the release was made without generated captions.
        """
        path = self.cache / f"{split}-generated.npy"
        return np.load(path, mmap_mode="r") if has_captions(self.release.manifest) else None


def open_training_release(path: str, cache: Path) -> TrainingRelease:
    """Open a release for training, and index its samples if that has not been done before.

    Of several processes one makes the index, and the others wait for it.

    Args:
        path: a release's folder, `releases/latest`, or a workspace.
        cache: local folder for memory-mapped files; a release takes 45 bytes a sample there.

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
    folder = cache / f"{manifest['digest'][:16]}-{SAMPLE_VERSION}"

    def write(draft: Path) -> None:
        index = release.folder / "index.parquet"
        expected = manifest["files"]["index.parquet"]
        if not index.exists() or sha256_of(index) != (expected["sha256"], expected["bytes"]):
            raise DataError(f"{index}: is missing or not the one of the manifest. Remedy: `mmdata verify` the release.")
        sizes = [shard["bytes"] for shard in manifest["shards"]]
        with_captions = has_captions(manifest)
        _write_samples(index, shards, sizes, draft, with_captions)

    build_once(folder, write)
    return TrainingRelease(release, shards, folder)


def _check_sizes(release: Release) -> None:
    """Raise DataError unless every shard has the size in the manifest. This lists the folder, and reads no shard."""
    folder = release.workspace.shards_dir
    folder.fs.invalidate_cache(folder.path)  # clients of object stores keep old listings
    try:
        listed = folder.fs.ls(folder.path, detail=True)
    except FileNotFoundError:
        listed = []
    sizes = {entry["name"].rstrip("/").rpartition("/")[2]: entry["size"] for entry in listed}
    for shard in release.manifest["shards"]:
        if (size := sizes.get(shard["name"])) != shard["bytes"]:
            problem = "is not there" if size is None else f"has {size} bytes, the manifest says {shard['bytes']}"
            raise DataError(
                f"{folder / shard['name']}: {problem}. Remedy: `mmdata verify`, then restore it from a copy."
            )


def _write_samples(index: UPath, shards: tuple[str, ...], sizes: list[int], folder: Path, with_captions: bool) -> None:
    """Write the rows of each split to `folder`, and the lengths of their generated captions.

    Raises DataError: a row points outside the release's shards.
    """
    numbers = pl.DataFrame({"shard": shards, "number": np.arange(len(shards), dtype=np.uint32), "bytes": sizes})
    offset, length, last_offset = pl.col("offset"), pl.col("length"), pl.col("bytes") - pl.col("length")
    is_inside = (offset >= 0) & (length > 0) & (last_offset >= 0) & (offset <= last_offset)
    with ExitStack() as stack:
        tables = {split: stack.enter_context(RowTable(folder / f"{split}.npy", SAMPLE)) for split in SPLITS}
        generated = {
            split: stack.enter_context(RowTable(folder / f"{split}-generated.npy", np.dtype("<u4")))
            for split in (SPLITS if with_captions else ())
        }
        file = stack.enter_context(index.open("rb"))
        columns = [*_COLUMNS, *([GENERATED_TOKENS.name] if with_captions else [])]
        for batch in pq.ParquetFile(file).iter_batches(_BATCH_ROWS, columns=columns):
            frame = pl.DataFrame(pa.Table.from_batches([batch])).join(numbers, "shard", "left", maintain_order="left")
            if frame["number"].null_count():
                unknown = frame.filter(pl.col("number").is_null())["shard"][0]
                raise DataError(
                    f"{index}: names the shard {unknown}, which is not of this release. Remedy: `mmdata verify`."
                )
            if len(outside := frame.filter(~is_inside.fill_null(False))):
                row = outside.row(0, named=True)
                raise DataError(
                    f"{index}: sample {row['uid']} is said to lie at byte {row['offset']}, {row['length']} bytes long, "
                    f"in {row['shard']}, which has {row['bytes']} bytes. Remedy: `mmdata verify` the release."
                )
            for split, table in tables.items():
                of_split = frame.filter(pl.col("split") == split)
                table.append(_rows(of_split))
                if with_captions:
                    generated[split].append(of_split[GENERATED_TOKENS.name].to_numpy().astype("<u4"))
    mark_complete(folder, {split: table.count for split, table in tables.items()})


def _rows(frame: pl.DataFrame) -> np.ndarray:
    """Rows of SAMPLE from rows of index.parquet."""
    rows = np.empty(len(frame), SAMPLE)
    if len(frame):
        rows["high"], rows["low"] = uid_words(frame["uid"])
    for name in ("offset", "length", "tokens", "copy"):
        rows[name] = frame[name].to_numpy()
    rows["shard"] = frame["number"].to_numpy()
    kinds = frame["signature"].str.split("+")
    rows["media"] = sum(kinds.list.contains(kind).to_numpy().astype(np.uint8) << bit for bit, kind in enumerate(MEDIA))
    rows["pictures"] = frame["frames"].to_numpy() * kinds.list.contains(DOCUMENT).to_numpy()
    return rows


def row_key(row: np.void) -> str:
    """The sample's key in its shard."""
    return sample_key(row_uid(row), int(row["copy"]))


def row_uid(row: np.void) -> str:
    """The sample's uid."""
    return f"{int(row['high']):016x}{int(row['low']):016x}"
