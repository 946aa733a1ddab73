"""The members of a sample in its shard (media, caption, facts), and how many bytes they take."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from os import cpu_count

import numpy as np
import polars as pl

from mmdata.config import Recaption
from mmdata.config.recaption import NO_CAPTIONS
from mmdata.documents import words_of
from mmdata.samples import estimate_tokens, hash64, sample_key
from mmdata.score.generated_captions import captioner_mark
from mmdata.score.sample_text import IS_GENERATED, with_sample_text
from mmdata.shards.facts import facts
from mmdata.shards.present_documents import present_documents
from mmdata.storage.tables import read_table
from mmdata.storage.tar import padded
from mmdata.workspace.layout import Workspace

CAPTION_FACTS_BYTES = 350  # the same of the facts about a generated caption
FACTS_BYTES = 600  # typical size of a `.json` without url and extra; precise enough for the number of buckets

_ROWS = ["uid", "kind", "url", "source", "caption", "extra", "start_s", "end_s"]
_STORED = ["uid", "ext", "offset", "length", "further", "duration_s", "audio_s", "synthetic"]
_MEDIA = [*_STORED, "fps", "frame_times_s", "sha256", "original_width", "original_height", "width", "height"]
_FEATURES = ["uid", "lang", "transcript"]
_GENERATED = ["generated_caption", "generated_score", "generated_lang", "caption_agreement"]
_FRAME = r"^\d{3}\."


def load_members(workspace: Workspace, selection: pl.DataFrame, recaption: Recaption = NO_CAPTIONS) -> pl.DataFrame:
    """Read the rows, media and features of selected samples: one row a uid, in no order.

    Args:
        selection: uid, part, slice; part and slice name the tables to read.

    Returns:
        Columns: uid, kind, url, source, caption, extra, start_s, end_s, lang, transcript; ext, tar, offset, length (of
        the first stored member, in that tar), further (the other ones), and what media says of them; document_pixels.
        Where captions are generated: own_score (the cosine of the source's caption), generated_by and what the features
        say of them. Documents are as `present_documents` gives them.
    """
    # a uid may be in several parts; the selection names the one to read
    chosen = selection.select("uid", "part", "slice").unique("uid").partition_by("part", "slice")
    with ThreadPoolExecutor(cpu_count() or 1) as pool:
        return pl.concat(list(pool.map(lambda of_slice: _of_slice(workspace, of_slice, recaption), chosen)))


def estimate_bytes(workspace: Workspace, selection: pl.DataFrame, recaption: Recaption = NO_CAPTIONS) -> dict[str, int]:
    """Estimate the bytes of selected samples in shards, with their copies, by split.

    Args:
        selection: uid, part, slice, split, repeats.
    """

    def of_slice(chosen_rows: pl.DataFrame) -> pl.DataFrame:
        part, name = chosen_rows.select("part", "slice").row(0)
        rows = _table(workspace, part, name, "rows", ["uid", "url", "caption", "extra"])
        media = _table(workspace, part, name, "media", ["uid", "length", "further"])
        joined = chosen_rows.join(rows, on="uid", how="left").join(media, on="uid", how="left")
        own = FACTS_BYTES + (CAPTION_FACTS_BYTES if recaption.is_on else 0)
        text, facts = (_size("caption"), own + _size("url") + _size("extra"))
        size = (stored_size() + _padded(text) + _padded(facts)) * pl.col("repeats")
        return joined.group_by("split").agg(size.sum())

    chosen = selection.select("uid", "part", "slice", "split", "repeats").partition_by("part", "slice")
    with ThreadPoolExecutor(cpu_count() or 1) as pool:
        sums = pl.concat(list(pool.map(of_slice, chosen)))
    return {split: int(size) for split, size in sums.group_by("split").sum().sort("split").iter_rows()}


def complete(placed: pl.DataFrame, members: pl.DataFrame, recaption: Recaption = NO_CAPTIONS) -> pl.DataFrame:
    """The samples of a bucket, in the given order, with everything that their shard holds.

    Args:
        placed: one row a copy: uid, copy, signature, split, clip_score; other columns are kept.
        members: from `load_members`, of these samples and maybe of others.

    Returns:
        `placed` with all columns of `members`, and key, txt, json (bytes), tokens, pixels, size (bytes in a shard);
        where captions are generated also generated_tokens.
    """
    frame = placed.join(members, on="uid", how="left", maintain_order="left").with_columns(
        transcript=pl.when(_is_empty(pl.col("caption"))).then("transcript"),
        augment=pl.Series(augment_seeds(placed["uid"], placed["copy"]), dtype=pl.UInt64),
    )
    frame = _with_text(frame, recaption)
    frame = frame.with_columns(
        pl.Series("key", [sample_key(*row) for row in frame.select("uid", "copy").iter_rows()], dtype=pl.String),
        pl.Series("json", list(facts(frame, recaption.is_on)), dtype=pl.Binary),
        txt=pl.col("caption").fill_null("").cast(pl.Binary),
        pixels=pl.col("width").fill_null(0).cast(pl.Int64) * pl.col("height").fill_null(0),
        frames=_frames(),
        seconds=pl.coalesce("duration_s", "audio_s").cast(pl.Float32),
    )
    frame = frame.with_columns(
        pixels=pl.coalesce("document_pixels", pl.col("pixels") * pl.max_horizontal(1, "frames")),
        tokens=frame.select(estimate_tokens(words_of())).to_series(),
    )
    words = padded(frame["txt"].bin.size().to_numpy()) + padded(frame["json"].bin.size().to_numpy())
    return frame.with_columns(size=stored_size() + pl.Series(words, dtype=pl.Int64))


def _with_text(frame: pl.DataFrame, recaption: Recaption) -> pl.DataFrame:
    """Samples with their text as `caption`; where it is a generated one, what is known of it is told."""
    if not recaption.is_on:
        return with_sample_text(frame, recaption)
    own = frame.select(original_caption="caption", score="clip_score", agreement="caption_agreement")
    # the selection's clip_score is already the one of the text; which text that is follows from the source's own
    frame = with_sample_text(frame.with_columns(clip_score="own_score"), recaption)
    is_made = pl.col(IS_GENERATED)
    beside = pl.when(~is_made).then("generated_caption")
    return frame.with_columns(
        clip_score=own["score"],
        caption_agreement=own["agreement"],
        original_caption=pl.when(is_made).then(own["original_caption"]),
        synthetic=pl.when(is_made).then(pl.lit("text")).otherwise("synthetic"),
        generated_tokens=estimate_tokens(beside).fill_null(0),
    )


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


def _of_slice(workspace: Workspace, chosen: pl.DataFrame, recaption: Recaption) -> pl.DataFrame:
    part, name = chosen.row(0)[1:]
    uids = chosen.select("uid")
    rows = _table(workspace, part, name, "rows", _ROWS)
    features = _features(workspace, part, name, recaption)
    # the table that was read names its tar: after a re-fetch, another read would name another one
    table = read_table(workspace.table(part, "media", name), _MEDIA, ["pictures"])
    tar = str(workspace.media_tar(part, name, table.schema.metadata))
    media = pl.DataFrame(table).with_columns(tar=pl.lit(tar))
    joined = uids.join(rows, on="uid", how="left").join(media, on="uid", how="left")
    return present_documents(joined.join(features, on="uid", how="left"))


def _features(workspace: Workspace, part: str, name: str, recaption: Recaption) -> pl.DataFrame:
    """The features that shards need; with generated captions, `own_score` is the score of the source's caption."""
    if not recaption.is_on:
        return _table(workspace, part, name, "features", _FEATURES)
    table = read_table(workspace.table(part, "features", name), [*_FEATURES, "clip_score", *_GENERATED])
    mark = captioner_mark(table.schema.metadata)
    made_by = pl.lit(None if mark is None else f"{mark.name} {mark.fingerprint}", pl.String)
    frame = pl.DataFrame(table).rename({"clip_score": "own_score"})
    return frame.with_columns(generated_by=pl.when(pl.col("generated_caption").is_not_null()).then(made_by))


def _table(workspace: Workspace, part: str, name: str, stage: str, columns: list[str]) -> pl.DataFrame:
    return pl.DataFrame(read_table(workspace.table(part, stage, name), columns))  # type: ignore[arg-type]


def _size(column: str) -> pl.Expr:
    return pl.col(column).str.len_bytes().fill_null(0).cast(pl.Int64)


def _padded(size: pl.Expr) -> pl.Expr:
    return 512 + (size + 511) // 512 * 512
