"""What of a sample goes into its shard: image, caption and facts, and how many bytes they take there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl

from mmdata.fingerprint import canonical_json
from mmdata.samples import estimate_tokens, sample_key
from mmdata.shards.tar import padded
from mmdata.tables import read_table, scan_tables
from mmdata.workspace import PartStage, Workspace

FACTS = ("uid", "url", "source", "lang", "clip_score", "sha256", "original_width", "original_height", "width", "height")
"""The keys of a sample's `.json`, beside `signature`, `split` and the source's own columns under `extra`.

Facts only: what a release decided (repeats, concept, cluster) stands in its index, so that a changed decision about
other samples does not change these bytes.
"""


def load_members(workspace: Workspace, selection: pl.DataFrame) -> pl.DataFrame:
    """The kept samples of some parts with all that their shards need, one row a copy.

    Args:
        selection: kept rows of the selection; `part` and `slice` say where the other tables lie.

    Returns:
        Columns: uid, part, slice, copy, repeats, key, signature, split, clip_score, cluster, concept, ext, tar, offset,
        length (of the stored image, in that tar), txt, json (bytes), tokens, pixels, size (bytes in a shard).
    """
    places = list(selection.select("part", "slice").unique().sort("part", "slice").iter_rows())
    rows = _tables(workspace, places, "rows", ["uid", "url", "source", "caption", "extra"])
    media = _media(workspace, places)
    features = _tables(workspace, places, "features", ["uid", "lang"])
    # a uid may stand in several parts; the selection says which of them stands for it
    joined = (
        selection.lazy()
        .with_columns(_place=pl.col("part") + "/" + pl.col("slice"))
        .join(rows, on=["uid", "_place"], how="left")
        .join(media, on=["uid", "_place"], how="left")
        .join(features, on=["uid", "_place"], how="left")
    )
    frame = joined.with_columns(
        tokens=estimate_tokens(pl.col("caption")),
        pixels=pl.col("width").fill_null(0).cast(pl.Int64) * pl.col("height").fill_null(0),
    ).collect()
    frame = frame.with_columns(
        txt=pl.col("caption").fill_null("").cast(pl.Binary),
        json=pl.Series(list(facts(frame)), dtype=pl.Binary),
    )
    copies = frame.with_columns(copy=pl.int_ranges(0, pl.col("repeats"), dtype=pl.Int32)).explode("copy")
    keys = [sample_key(uid, copy) for uid, copy in copies.select("uid", "copy").iter_rows()]
    image = np.where(copies["ext"].is_not_null(), padded(copies["length"].fill_null(0).to_numpy()), 0)
    size = image + padded(copies["txt"].bin.size().to_numpy()) + padded(copies["json"].bin.size().to_numpy())
    return copies.with_columns(pl.Series("key", keys, dtype=pl.String), pl.Series("size", size, dtype=pl.Int64))


def facts(frame: pl.DataFrame) -> Iterator[bytes]:
    """Each sample's `.json`: canonical, so that the same facts give the same bytes."""
    for row in frame.select(*FACTS, "signature", "split", "extra").iter_rows(named=True):
        row["extra"] = json.loads(row["extra"]) if row["extra"] else {}
        row["clip_score"] = None if row["clip_score"] is None else round(row["clip_score"], 6)
        yield canonical_json(row).encode()


def _tables(
    workspace: Workspace, places: Sequence[tuple[str, str]], stage: PartStage, columns: list[str]
) -> pl.LazyFrame:
    frames = [
        scan_tables([workspace.table(part, stage, name)], columns).with_columns(_place=pl.lit(f"{part}/{name}"))
        for part, name in places
    ]
    return pl.concat(frames)


def _media(workspace: Workspace, places: Sequence[tuple[str, str]]) -> pl.LazyFrame:
    """The media tables with the tar that each addresses, read in one go: a re-fetch in between would part them."""
    columns = ["uid", "ext", "offset", "length", "sha256", "original_width", "original_height", "width", "height"]
    frames = []
    for part, name in places:
        table = read_table(workspace.table(part, "media", name), columns)
        tar = str(workspace.media_tar(part, name, table.schema.metadata))
        frame = pl.DataFrame(table)
        frames.append(frame.lazy().with_columns(_place=pl.lit(f"{part}/{name}"), tar=pl.lit(tar)))
    return pl.concat(frames)
