"""The pairs of a release whose workspace has no tables: read from its shards, embedded once, and cached by shard."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from upath import UPath

from mmdata.config import Score
from mmdata.releases.manifest import Release
from mmdata.samples import own_columns
from mmdata.score.decode import decode_picture
from mmdata.score.features_reader import ScorerMark
from mmdata.score.scorer import ClipScorer, load_scorer
from mmdata.storage.tables import scan_tables, write_table
from training.compare.pairs import FACTS, PairTables
from training.data.sample_index import SPLITS, open_training_release, row_uid
from training.data.sample_reader import SampleReader

_BATCH = 256
_PICTURES = ("jpg", "png", "webp", "000.jpg", "000.png", "000.webp")  # of a clip its first frame
_VECTOR = pa.list_(pa.float16())
_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("uid", "url", "caption", "sha256", "lang", "extra")),
        ("phash", pa.uint64()),
        ("embedding", _VECTOR),
        ("text_embedding", _VECTOR),
    ]
)


def read_shard_pairs(
    release: Release,
    score: Score,
    cache: UPath,
    group_column: str | None = None,
    advance: Callable[[int], None] = lambda samples: None,
    splits: Sequence[str] = SPLITS,
) -> PairTables:
    """The pairs of a release from its shards. Shards that another release has too are embedded once.

    Args:
        score: the scorer; its towers embed pictures and captions.
        cache: local folder of one table a shard, below the scorer's fingerprint.
        advance: called with the number of samples that were just embedded.
        splits: which of the release; a shard holds samples of one split only.

    Raises:
        DataError: a shard is missing or damaged; names it.
    """
    scorer, opened = load_scorer(score), open_training_release(str(release.folder), Path(cache.path))
    samples = np.concatenate([opened.samples(split) for split in splits])
    samples = samples[samples["copy"] == 0]
    reader, tables = SampleReader(opened), []
    for number in np.unique(samples["shard"]):
        shard = opened.shards[number]
        table = cache / scorer.fingerprint / f"{shard}.parquet"
        if not table.exists():
            members = map(reader.members, samples[samples["shard"] == number])
            keys = map(row_uid, samples[samples["shard"] == number])
            write_table(table, _embed(zip(keys, members, strict=True), scorer, advance))
        tables.append(table)
    if not tables:
        return PairTables(pl.DataFrame(schema={**FACTS, "table": pl.UInt32, "row": pl.UInt32}))
    group = pl.col("extra").str.json_path_match(f"$.{group_column}") if group_column else pl.lit(None, pl.String)
    frames = [
        scan_tables([table], ["uid", "url", "caption", "sha256", "phash", "lang", "extra"])
        .with_row_index("row")
        .select(*(pl.col(name) for name in FACTS if name != "group"), group.alias("group"), "row")
        .with_columns(table=pl.lit(number, pl.UInt32))
        .select(*FACTS, "table", "row")
        .collect()
        for number, table in enumerate(tables)
    ]
    frame = pl.concat(frames).unique("uid", keep="first", maintain_order=True).sort("uid")
    return PairTables(frame, tables, ScorerMark(scorer.name, scorer.fingerprint))


def _embed(
    samples: Iterable[tuple[str, Mapping[str, bytes]]], scorer: ClipScorer, advance: Callable[[int], None]
) -> pa.Table:
    """The table of a shard, from the uid and the members of each sample."""
    rows: list[dict[str, Any]] = []
    pixels = np.zeros((_BATCH, *scorer.preprocess.size, 3), np.uint8)
    waiting: list[dict[str, Any]] = []
    for uid, members in samples:
        picture = next((members[name] for name in _PICTURES if name in members), None)
        caption = members.get("txt", b"").decode("utf-8", "replace").strip()
        if picture is None or not caption:
            continue
        measured = decode_picture(picture, scorer.preprocess, pixels[len(waiting)])
        if measured.problem is None:
            facts = own_columns(members.get("json", b"").decode("utf-8", "replace"))
            texts = {
                name: facts[name] for name in ("url", "sha256", "lang", "extra") if isinstance(facts.get(name), str)
            }
            waiting.append({"uid": uid, "caption": caption, "phash": measured.phash, **texts})
        if len(waiting) == _BATCH:
            rows += _with_vectors(waiting, pixels, scorer)
            advance(len(waiting))
            waiting = []
    rows += _with_vectors(waiting, pixels, scorer)
    advance(len(waiting))
    return pa.Table.from_pylist(rows, schema=_SCHEMA)


def _with_vectors(rows: list[dict[str, Any]], pixels: np.ndarray, scorer: ClipScorer) -> list[dict[str, Any]]:
    images = scorer.embed_images(pixels[: len(rows)]).astype(np.float16)
    texts = scorer.embed_texts([row["caption"] for row in rows]).astype(np.float16)
    pairs = zip(rows, images, texts, strict=True)
    return [{**row, "embedding": image, "text_embedding": text} for row, image, text in pairs]
