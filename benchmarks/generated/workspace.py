"""A workspace of finished parts with as many rows as asked for: the tables and stamps that the selection starts from.

The tables have the schemas of the real ones and hold what a crawl holds: repeated URLs and bytes, pictures that are
nearly the same by hash and by embedding, failures, three signatures at 80:15:5, captions of Zipf-distributed words.
There are no media: stages that read pictures cannot run on it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from mmdata.config import Corpus
from mmdata.engine.part_run import SliceResult, publish_slice, stamp_part
from mmdata.engine.stage_fingerprints import features_input, rows_input, stage_settings
from mmdata.fingerprint import fingerprint
from mmdata.samples import FEATURES, MEDIA, ROWS
from mmdata.select.selection_table import hex_uids
from mmdata.workspace.layout import PART_STAGES, Catalog, Part, PartStage, SliceStamp, Workspace

PART_ROWS = 250_000
SLICE_ROWS = 25_000
CENTRES = 1000
WORDS = 20_000
TWINS = 50_000
"""Pictures that stand in several rows."""

SCORER = {b"scorer": json.dumps({"name": "generated", "fingerprint": "00c0ffee"}).encode()}


def generate(corpus: Corpus, rows: int, dim: int | None = None, first: int = 0) -> None:
    """Add finished parts to the workspace of a corpus, and list them in its catalogue.

    Args:
        rows: further rows; they depend on their number only.
        dim: width of the embeddings; None: the rows have none.
        first: number of the first part, so that a corpus can grow.
    """
    workspace = Workspace(corpus.workspace)
    source = corpus.sources[0].name
    parts = dict(workspace.catalog().parts)
    for number in range(first, first - (-rows // PART_ROWS)):
        size = min(PART_ROWS, rows - (number - first) * PART_ROWS)
        name = f"{source}-{number:06d}"
        parts[name] = Part(name, source, f"{name}.parquet", 0, size, digest=fingerprint(name, size, dim))
        _finish(corpus, workspace, parts[name], number, dim)
    workspace.write_catalog(Catalog(parts=parts))


def _finish(corpus: Corpus, workspace: Workspace, part: Part, number: int, dim: int | None) -> None:
    slices: dict[PartStage, dict[str, SliceStamp]] = {stage: {} for stage in PART_STAGES}
    for place, start in enumerate(range(0, part.stop, SLICE_ROWS)):
        tables = _tables(part, number * 1000 + place, min(SLICE_ROWS, part.stop - start), dim)
        for stage, table in tables.items():
            name = f"{place:04d}"
            slices[stage][name] = publish_slice(workspace, part.name, stage, name, "generated", SliceResult(table))
    upstream, rows_digest = rows_input(part), ""
    for stage in PART_STAGES:
        settings = stage_settings(corpus, part, stage)
        stamp = stamp_part(workspace, part.name, stage, fingerprint(settings, upstream), slices[stage], None)
        rows_digest = stamp.digest if stage == "rows" else rows_digest
        upstream = stamp.digest if stage == "rows" else features_input(rows_digest, stamp.digest)


def _tables(part: Part, seed: int, rows: int, dim: int | None) -> dict[PartStage, pa.Table]:
    rng = np.random.default_rng(seed)
    high = np.sort(rng.integers(0, 2**64, rows, dtype=np.uint64))
    uids = hex_uids(high, rng.integers(0, 2**64, rows, dtype=np.uint64))
    kind = rng.choice(3, rows, p=[0.8, 0.15, 0.05])
    words = rng.integers(1, 20, rows)
    caption = pl.Series(_captions(rng, words)).set(pl.Series(kind == 1), None)
    twin = rng.random(rows) < 0.1  # of what another row has, in this or another slice
    content = np.where(twin, rng.integers(0, TWINS, rows), rng.integers(0, 2**63, rows)).astype(np.uint64)
    place, file = (np.where(rng.random(rows) < 0.3, content, number) for number in _numbers(rng, rows))
    success = rng.random(rows) >= 0.2
    score = rng.normal(0.28, 0.06, rows).astype(np.float32)
    flips = np.uint64(1) << rng.integers(0, 64, rows, dtype=np.uint64)
    texts = pl.DataFrame({"place": place, "caption": caption}).select(
        url=pl.format("https://images.example.org/a/{}/picture.jpg", "place"),
        sha256=pl.Series(hex_uids(file, ~file)) + pl.Series(hex_uids(~file, file)),
        caption="caption",
    )
    shared = {"uid": uids}
    facts: dict[PartStage, Mapping[str, Any]] = {
        "rows": {
            "source": [part.source] * rows,
            "part": [part.name] * rows,
            "kind": pa.array(["image", "image", "video"]).take(pa.array(kind)),
            "url": texts["url"],
            "caption": texts["caption"],
            "copies": np.ones(rows, np.int32),
            "row": np.arange(rows),
            "extra": ["{}"] * rows,
        },
        "media": {
            "status": pa.array(["failed_to_download", "success"]).take(pa.array(success.astype(int))),
            "error": pl.Series([None if good else "http_404" for good in success], dtype=pl.String),
            "attempts": np.ones(rows, np.int32),
            "sha256": texts["sha256"].set(pl.Series(~success), None),
            "original_width": np.full(rows, 640, np.int32),
            "original_height": np.full(rows, 480, np.int32),
        },
        "features": {
            "clip_score": pl.Series(np.where(kind == 1, np.nan, score)).fill_nan(None),
            # a tenth of the pictures differs in a bit or two from another one
            "phash": (content * np.uint64(0x9E3779B97F4A7C15)) ^ np.where(twin, flips, np.uint64(0)),
            "lang": pa.array(["en", "de", "zh"]).take(pa.array(rng.choice(3, rows, p=[0.7, 0.2, 0.1]))),
            "lang_prob": np.ones(rows, np.float32),
            "n_words": words.astype(np.int32),
            "n_chars": texts["caption"].str.len_chars(),
            "aspect": np.full(rows, 4 / 3, np.float32),
            "sharpness": np.full(rows, 100, np.float32),
            **({} if dim is None else {"embedding": _embeddings(rng, content, twin, dim)}),
        },
    }
    schemas: dict[PartStage, pa.Schema] = {"rows": ROWS, "media": MEDIA, "features": FEATURES}
    tables = {stage: _as_table({**shared, **facts[stage]}, schema, rows) for stage, schema in schemas.items()}
    tables["features"] = tables["features"].replace_schema_metadata(SCORER)
    return tables


def _numbers(rng: np.random.Generator, rows: int) -> np.ndarray:
    """Two columns of numbers that do not repeat, uint64 (2, rows)."""
    return rng.integers(0, 2**63, (2, rows)).astype(np.uint64)


def _as_table(columns: Mapping[str, Any], schema: pa.Schema, rows: int) -> pa.Table:
    """The columns in the order and types of the schema; those that are not given are null."""
    arrays = []
    for field in schema:
        column = columns.get(field.name)
        if column is None:
            arrays.append(pa.nulls(rows, field.type))
        else:
            arrays.append((column.to_arrow() if isinstance(column, pl.Series) else pa.array(column)).cast(field.type))
    return pa.table(arrays, schema=schema)


def _captions(rng: np.random.Generator, words: np.ndarray) -> pa.Array:
    """Captions of so many words, whose frequency falls by rank as it does in a language."""
    ranks = np.minimum(rng.zipf(1.2, int(words.sum())) - 1, WORDS - 1)
    vocabulary = pa.array([f"w{number}" for number in range(WORDS)])
    offsets = np.concatenate([[0], np.cumsum(words)]).astype(np.int32)
    return pa.compute.binary_join(pa.ListArray.from_arrays(offsets, vocabulary.take(pa.array(ranks))), " ")


def _embeddings(rng: np.random.Generator, content: np.ndarray, twin: np.ndarray, dim: int) -> pa.Array:
    """Unit vectors around Zipf-distributed centres; twins of the same content are nearly the same. list<halffloat>."""
    centres, further = np.random.default_rng(0).normal(size=(2, CENTRES, dim)).astype(np.float32)
    vectors = centres[np.minimum(rng.zipf(1.3, len(content)) - 1, CENTRES - 1)]
    vectors += rng.standard_normal(vectors.shape, np.float32)
    centre, offset = np.divmod(content[twin].astype(np.int64), TWINS // CENTRES)
    vectors[twin] = centres[centre] + further[offset]
    vectors[twin] += 0.01 * rng.standard_normal(vectors[twin].shape, np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    flat = pa.array(vectors.astype(np.float16).reshape(-1))
    return pa.ListArray.from_arrays(np.arange(0, vectors.size + 1, dim, dtype=np.int32), flat)
