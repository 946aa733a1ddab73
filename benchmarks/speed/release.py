"""A release of made-up photographs, written by the real stages: what both sides of the benchmark train on."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.scoring import photo
from mmdata.config import Corpus
from mmdata.config.load import parse_corpus
from mmdata.engine.part_run import SliceResult, publish_slice, stamp_part
from mmdata.engine.stage_fingerprints import features_input, rows_input, stage_settings
from mmdata.fingerprint import fingerprint
from mmdata.instruct.stage import write_instructions
from mmdata.publish.release import publish_release
from mmdata.samples import FEATURES, MEDIA, ROWS, sample_uid, table_of
from mmdata.select.stage import select_samples
from mmdata.shards.stage import write_shards
from mmdata.storage.atomic import atomic_path
from mmdata.workspace.layout import PART_STAGES, Catalog, Part, PartStage, Workspace

PART, SLICE = "web-000000", "0000"
SIDE_PX = 256
DISTINCT = 256  # pictures that are drawn; the samples share them
SCORER = {b"scorer": b'{"name": "none: made up", "fingerprint": "00"}'}
WORDS = "a the red old small wooden house dog cat street market river beside under with two people light morning"


def write_release(folder: Path, samples: int, shard_mb: float) -> Workspace:
    """A release of `samples` pictures of 256 pixels with captions as long as the web's, all of them for training."""
    workspace, corpus = Workspace(str(folder)), _corpus(folder, shard_mb)
    part = Part(PART, "web", "x.parquet", 0, samples, "made up")
    workspace.write_catalog(Catalog(parts={PART: part}))
    tables = _tables(workspace, samples)
    upstream, digests = rows_input(part), dict[PartStage, str]()
    for stage in PART_STAGES:
        if stage == "features":
            upstream = features_input(digests["rows"], digests["media"])
        stamp = publish_slice(workspace, PART, stage, SLICE, "made up", SliceResult(tables[stage]))
        expected = fingerprint(stage_settings(corpus, part, stage), upstream)
        upstream = digests[stage] = stamp_part(workspace, PART, stage, expected, {SLICE: stamp}, None).digest
    select_samples(corpus, workspace)
    write_shards(corpus, workspace)
    write_instructions(corpus, workspace)
    publish_release(corpus, workspace)
    return workspace


def caption_words(count: int, rng: np.random.Generator) -> np.ndarray:
    """int64: words of captions, log-normal as alt texts are: median 9, mean 12, a few of a hundred."""
    return np.clip(np.exp(rng.normal(np.log(9), 0.8, count)), 3, 120).astype(np.int64)


def _corpus(folder: Path, shard_mb: float) -> Corpus:
    nothing = {"url": False, "exact": False, "phash_bits": None, "semantic_eps": None}
    return parse_corpus(
        {
            "workspace": str(folder),
            "sources": [{"name": "web", "kind": "laion", "files": "x.parquet"}],
            "score": {"model": "demo"},
            "select": {"dedup": nothing, "balance": {"max_ratio": None}, "oversample": {"max_repeats": 1}},
            "shards": {"shard_mb": shard_mb, "validation_fraction": 0},
            "instruct": {"tasks": ["transcribe"], "formats": []},
        }
    )


def _tables(workspace: Workspace, samples: int) -> dict[PartStage, pa.Table]:
    rng = np.random.default_rng(0)
    pictures = [photo(rng, SIDE_PX) for _ in range(min(samples, DISTINCT))]
    words = WORDS.split()
    rows: list[dict[str, Any]] = []
    for number, length in enumerate(caption_words(samples, rng)):
        caption = f"{' '.join(rng.choice(words, length))} {number}"
        url = f"https://example.org/{number}.jpg"
        rows.append({"uid": sample_uid(url, caption), "url": url, "caption": caption, "row": number, "lang": "en"})
    rows.sort(key=lambda row: row["uid"])
    media: list[dict[str, Any]] = []
    with (
        atomic_path(workspace.media_tar(PART, SLICE, None)) as draft,
        tarfile.open(draft, "w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for at, row in enumerate(rows):
            data = pictures[at % len(pictures)]
            header = tarfile.TarInfo(f"{row['uid']}.jpg")
            header.size = len(data)
            size = {"width": SIDE_PX * 4 // 3, "height": SIDE_PX, "bytes": len(data)}
            media.append({"uid": row["uid"], "status": "success", "attempts": 1, "ext": "jpg", **size})
            media[-1] |= {"offset": tar.offset + 512, "length": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            tar.addfile(header, io.BytesIO(data))
    shared = {"source": "web", "part": PART, "kind": "image", "copies": 1}
    vector = np.ones(8, np.float16)
    features = [{"uid": row["uid"], "clip_score": 0.3, "embedding": vector, "lang": "en"} for row in rows]
    return {
        "rows": table_of([{**shared, **row} for row in rows], ROWS),
        "media": table_of(media, MEDIA),
        "features": table_of(features, FEATURES).replace_schema_metadata(SCORER),
    }
