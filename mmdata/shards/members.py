"""The members of a sample in its shard (media, caption, facts), and how many bytes they take."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from os import cpu_count

import numpy as np
import polars as pl

from mmdata.samples import caption_or_transcript, estimate_tokens, hash64, sample_key
from mmdata.shards.facts import facts
from mmdata.storage.tables import read_table
from mmdata.storage.tar import padded
from mmdata.workspace.layout import Workspace

FACTS_BYTES = 600  # typical size of a `.json` without url and extra; precise enough for the number of buckets

_ROWS = ["uid", "url", "source", "caption", "extra", "start_s", "end_s"]
_STORED = ["uid", "ext", "offset", "length", "further", "duration_s", "audio_s", "synthetic"]
_MEDIA = [*_STORED, "fps", "frame_times_s", "sha256", "original_width", "original_height", "width", "height"]
_FRAME = r"^\d{3}\."


def load_members(workspace: Workspace, selection: pl.DataFrame) -> pl.DataFrame:
    """Read the rows, media and features of selected samples: one row a uid, in no order.

    Args:
        selection: uid, part, slice; part and slice name the tables to read.

    Returns:
        Columns: uid, url, source, caption, extra, start_s, end_s, lang, transcript; ext, tar, offset, length (of the
        first stored member, in that tar), further (the other ones), and what media says of them.
    """
    # a uid may be in several parts; the selection names the one to read
    chosen = selection.select("uid", "part", "slice").unique("uid").partition_by("part", "slice")
    with ThreadPoolExecutor(cpu_count() or 1) as pool:
        return pl.concat(list(pool.map(lambda of_slice: _of_slice(workspace, of_slice), chosen)))


def estimate_bytes(workspace: Workspace, selection: pl.DataFrame) -> dict[str, int]:
    """Estimate the bytes of selected samples in shards, with their copies, by split.

    Args:
        selection: uid, part, slice, split, repeats.
    """

    def of_slice(chosen_rows: pl.DataFrame) -> pl.DataFrame:
        part, name = chosen_rows.select("part", "slice").row(0)
        rows = _table(workspace, part, name, "rows", ["uid", "url", "caption", "extra"])
        media = _table(workspace, part, name, "media", ["uid", "length", "further"])
        joined = chosen_rows.join(rows, on="uid", how="left").join(media, on="uid", how="left")
        text, facts = (_size("caption"), FACTS_BYTES + _size("url") + _size("extra"))
        size = (stored_size() + _padded(text) + _padded(facts)) * pl.col("repeats")
        return joined.group_by("split").agg(size.sum())

    chosen = selection.select("uid", "part", "slice", "split", "repeats").partition_by("part", "slice")
    with ThreadPoolExecutor(cpu_count() or 1) as pool:
        sums = pl.concat(list(pool.map(of_slice, chosen)))
    return {split: int(size) for split, size in sums.group_by("split").sum().sort("split").iter_rows()}


def complete(placed: pl.DataFrame, members: pl.DataFrame) -> pl.DataFrame:
    """The samples of a bucket, in the given order, with everything that their shard holds.

    Args:
        placed: one row a copy: uid, copy, signature, split, clip_score; other columns are kept.
        members: from `load_members`, of these samples and maybe of others.

    Returns:
        `placed` with all columns of `members`, and key, txt, json (bytes), tokens, pixels, size (bytes in a shard).
    """
    frame = placed.join(members, on="uid", how="left", maintain_order="left").with_columns(
        transcript=pl.when(_is_empty(pl.col("caption"))).then("transcript"),
        augment=pl.Series(augment_seeds(placed["uid"], placed["copy"]), dtype=pl.UInt64),
    )
    frame = frame.with_columns(caption=caption_or_transcript())
    frame = frame.with_columns(
        pl.Series("key", [sample_key(*row) for row in frame.select("uid", "copy").iter_rows()], dtype=pl.String),
        pl.Series("json", list(facts(frame)), dtype=pl.Binary),
        txt=pl.col("caption").fill_null("").cast(pl.Binary),
        tokens=estimate_tokens(pl.col("caption")),
        pixels=pl.col("width").fill_null(0).cast(pl.Int64) * pl.col("height").fill_null(0),
        frames=_frames(),
        seconds=pl.coalesce("duration_s", "audio_s").cast(pl.Float32),
    )
    frame = frame.with_columns(pixels=pl.col("pixels") * pl.max_horizontal(1, "frames"))
    words = padded(frame["txt"].bin.size().to_numpy()) + padded(frame["json"].bin.size().to_numpy())
    return frame.with_columns(size=stored_size() + pl.Series(words, dtype=pl.Int64))


def stored_size() -> pl.Expr:
    """Bytes of the stored members of a sample in a shard, from `length` and `further`."""
    first = pl.when(pl.col("length").is_not_null()).then(_padded(pl.col("length"))).otherwise(0)
    further = pl.col("further").list.eval(_padded(pl.element().struct.field("length"))).list.sum()
    return (first + further.fill_null(0)).alias("stored_size")


def stored_members(frame: pl.DataFrame) -> pl.DataFrame:
    """The stored members of samples, in their order in a shard.

    Args:
        frame: has ext, offset, length and further.

    Returns:
        sample (row of `frame`), ext, offset, length.
    """
    numbered = frame.select("ext", "offset", "length", "further").with_row_index("sample")
    first = numbered.filter(pl.col("ext").is_not_null()).select("sample", "ext", "offset", "length")
    has_further = numbered.filter(pl.col("further").list.len() > 0).select("sample", "further")
    further = has_further.explode("further").unnest("further").select(first.columns)
    return pl.concat([first, further]).sort("sample", maintain_order=True)


def _is_empty(text: pl.Expr) -> pl.Expr:
    return text.is_null() | (text.str.len_bytes() == 0)


def _frames() -> pl.Expr:
    """Number of frames of a clip; 0 for other samples."""
    further = pl.col("further").list.eval(pl.element().struct.field("ext").str.contains(_FRAME)).list.sum().fill_null(0)
    first = pl.col("ext").str.contains(_FRAME).fill_null(value=False)
    return (first.cast(pl.Int32) + further.cast(pl.Int32)).cast(pl.Int32)


def augment_seeds(uids: pl.Series, copies: pl.Series) -> np.ndarray:
    """Augmentation seed of each copy, uint64 below 2^53 (exact in any reader of JSON); 0 for the first copy."""
    seeds = np.zeros(len(uids), np.uint64)
    for copy in copies.unique().to_list():
        if copy > 0:
            chosen = (copies == copy).to_numpy()
            hashes = hash64(uids.filter(pl.Series(chosen)), 0, f"augment {copy}")
            seeds[chosen] = np.maximum(hashes >> np.uint64(11), np.uint64(1))
    return seeds


def _of_slice(workspace: Workspace, chosen: pl.DataFrame) -> pl.DataFrame:
    part, name = chosen.row(0)[1:]
    uids = chosen.select("uid")
    rows = _table(workspace, part, name, "rows", _ROWS)
    features = _table(workspace, part, name, "features", ["uid", "lang", "transcript"])
    # the table that was read names its tar: after a re-fetch, another read would name another one
    table = read_table(workspace.table(part, "media", name), _MEDIA)
    tar = str(workspace.media_tar(part, name, table.schema.metadata))
    media = pl.DataFrame(table).with_columns(tar=pl.lit(tar))
    joined = uids.join(rows, on="uid", how="left").join(media, on="uid", how="left")
    return joined.join(features, on="uid", how="left")


def _table(workspace: Workspace, part: str, name: str, stage: str, columns: list[str]) -> pl.DataFrame:
    return pl.DataFrame(read_table(workspace.table(part, stage, name), columns))  # type: ignore[arg-type]


def _size(column: str) -> pl.Expr:
    return pl.col(column).str.len_bytes().fill_null(0).cast(pl.Int64)


def _padded(size: pl.Expr) -> pl.Expr:
    return 512 + (size + 511) // 512 * 512
