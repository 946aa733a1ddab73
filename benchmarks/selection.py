"""The selection stage over generated workspaces: against the same decisions in pandas, its growth, and its memory.

The comparison is of what metadata decide: both sides read the same tables, filter, drop repeated URLs and bytes, thin
the common signatures, repeat the rare ones, and write a decision for every row, sorted by uid. Both must keep the same
samples equally often. Our side is the whole stage: it also gives a reason for every row, and sums up.

The other rows run the stage with all its steps on: perceptual hashes, clusters and semantic duplicates, MetaCLIP's
matching and balance.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl

from benchmarks.generated.workspace import WORDS, generate
from benchmarks.harness import Row, Run, compare, measure, start_clock
from mmdata.config import Corpus
from mmdata.config.load import parse_corpus
from mmdata.releases.draft import read_draft
from mmdata.samples import draws
from mmdata.select.dedup import near_hashes
from mmdata.select.stage import select_samples
from mmdata.workspace.layout import Workspace

BY_METADATA: dict[str, Any] = {
    "filter": {"min_clip_score": 0.2, "languages": ["en"], "min_words": 3},
    "dedup": {"phash_bits": None, "semantic_eps": None, "text_similarity": None},
    "balance": {"max_ratio": 3.0},
    "oversample": {"threshold": 0.2, "max_repeats": 4},
}
EVERY_STEP: dict[str, Any] = {
    "filter": {"min_clip_score": 0.2, "languages": ["en", "de"], "min_words": 2},
    "dedup": {"phash_bits": 4, "semantic_eps": 0.05},
    "oversample": {"max_repeats": 4},
}
DIM = 128
MEMORY_GOAL_MIB = 2e9 / 2**20


def run(quick: bool) -> list[Row]:
    """Against pandas at 1M rows, growth to 10M; every step at 100,000 and 1M; a fiftieth of that if quick."""
    rows = 20_000 if quick else 1_000_000
    folder = Path(tempfile.mkdtemp(prefix="mmdata-bench-selection-"))
    try:
        for name, count in (("small", rows), ("large", 10 * rows)):
            generate(corpus_in(folder / name, BY_METADATA), count)
        row = compare(
            f"selection by metadata, {rows:,} rows",
            "rows/s",
            lambda: measure(select_ours, folder / "small", BY_METADATA),
            lambda: measure(select_pandas, folder / "small"),
            goal=5.0,
            note="filter, URL and sha256 dedup, balance of signatures, repeats; peer: pandas, same keep set",
        )
        check_same(folder / "small")
        small = measure(select_ours, folder / "small", BY_METADATA)
        large = measure(select_ours, folder / "large", BY_METADATA)
        lines = [row, *_growth("by metadata", 10 * rows, small, large)]
        for name in ("small", "large"):
            shutil.rmtree(folder / name)
        every_step = EVERY_STEP | {"balance": {"concepts": str(_concepts(folder))}}
        runs = []
        for name, count in (("small", rows // 10), ("large", rows)):
            generate(corpus_in(folder / name, every_step), count, DIM)
            runs.append(measure(select_ours, folder / name, every_step))
        return [*lines, *_growth("with every step", rows, *runs), _phash(rows, quick)]
    finally:
        shutil.rmtree(folder)


def _growth(what: str, rows: int, small: Run, large: Run) -> list[Row]:
    peaks: dict[str, Any] = {"ours_peak_mib": large.peak_mib, "peer_peak_mib": 0.0, "lower_is_better": True}
    times = f"time for ten times the rows: {small.wall_s:.2f} s, then {large.wall_s:.2f} s; peer: linear"
    growth = large.wall_s / small.wall_s
    name = f"selection {what},"
    memory = "peak resident memory; the peer is the goal of 2 GB"
    return [
        Row(f"{name} growth to {rows:,}", "times", growth, 10.0, **peaks, goal=0.8, note=times),
        Row(f"{name} memory at {rows:,}", "MiB", large.peak_mib, MEMORY_GOAL_MIB, **peaks, goal=1.0, note=memory),
    ]


def _phash(rows: int, quick: bool) -> Row:
    compared = 20_000 if quick else 100_000
    big = measure(search_tables, rows)
    return compare(
        f"pHash within 4 bits, {compared:,} hashes",
        "hashes/s",
        lambda: measure(search_tables, compared),
        lambda: measure(search_pairs, compared),
        rounds=1 if quick else 3,
        note=f"peer: all pairs, numpy; ours at {rows:,} hashes: {big.wall_s:.1f} s, {big.peak_mib:,.0f} MiB",
    )


def corpus_in(folder: Path, select: dict[str, Any]) -> Corpus:
    """A corpus whose workspace is the folder; nothing is held out, so that repeats can be compared."""
    source = {"name": "web", "kind": "laion", "files": str(folder / "*.parquet")}
    return parse_corpus(
        {
            "workspace": str(folder),
            "sources": [source],
            "score": {"model": "demo"},
            "select": select,
            "shards": {"validation_fraction": 0},
        }
    )


def _concepts(folder: Path) -> Path:
    """A list of half of the words that captions are made of."""
    path = folder / "concepts.txt"
    path.write_text("\n".join(f"w{number}" for number in range(0, WORDS, 2)))
    return path


# -- the two sides ----------------------------------------------------------------------------------------------


def select_ours(folder: Path, select: dict[str, Any]) -> float:
    """The whole stage, as if there had been no draft."""
    corpus = corpus_in(folder, select)
    shutil.rmtree(folder / "releases", ignore_errors=True)
    start_clock()
    return float(select_samples(corpus, Workspace(corpus.workspace)).counts["uids"])


def select_pandas(folder: Path) -> float:
    """The same decisions in plain pandas."""
    start_clock()
    columns = {
        "rows": ["uid", "url", "kind", "caption"],
        "media": ["sha256", "status"],
        "features": ["clip_score", "lang", "n_words"],
    }
    tables = [
        pd.concat([pd.read_parquet(path, columns=names) for path in _tables(folder, stage)], ignore_index=True)
        for stage, names in columns.items()
    ]
    samples = pd.concat(tables, axis=1)
    samples["signature"] = np.where(
        samples["caption"].isna(), samples["kind"], samples["kind"].map({"image": "image+text", "video": "text+video"})
    )
    rules = BY_METADATA["filter"]
    good = samples[
        (samples["status"] == "success")
        & (samples["clip_score"] >= np.float32(rules["min_clip_score"]))
        & samples["lang"].isin(rules["languages"])
        & (samples["n_words"] >= rules["min_words"])
    ]
    best = good.sort_values(["clip_score", "uid"], ascending=[False, True])
    unique = best.drop_duplicates(["kind", "url"]).drop_duplicates(["kind", "sha256"])
    sizes = unique["signature"].value_counts()
    cap = int(sizes.min() * BY_METADATA["balance"]["max_ratio"])
    unique = unique.assign(draw=draws(pl.Series(unique["uid"].to_numpy()), 0, "modality").to_numpy())
    kept = unique[unique.groupby("signature")["draw"].rank(method="first") <= cap]
    share = kept["signature"].map(kept["signature"].value_counts()) / len(kept)
    wanted = BY_METADATA["oversample"]
    threshold = min(wanted["threshold"], 1 / kept["signature"].nunique())
    factor = np.sqrt(threshold / share).clip(1, wanted["max_repeats"])
    whole = np.floor(factor)
    draw = draws(pl.Series(kept["uid"].to_numpy()), 0, "repeat").to_numpy()
    samples["repeats"] = 0
    samples.loc[kept.index, "repeats"] = (whole + (draw < factor - whole)).astype(np.int64)
    samples["keep"] = samples["repeats"] > 0
    decided = samples[["uid", "signature", "clip_score", "keep", "repeats"]].sort_values("uid")
    decided.to_parquet(folder / "pandas.parquet", index=False, compression="zstd")
    return float(len(samples))


def _tables(folder: Path, stage: str) -> list[Path]:
    return sorted(folder.glob(f"parts/*/{stage}/*.parquet"))


def check_same(folder: Path) -> None:
    """Both sides keep the same samples, equally often."""
    workspace = Workspace(str(folder))
    ours = Path(workspace.release_dir(read_draft(workspace).release_id) / "selection.parquet")
    decided = [
        pl.read_parquet(path).select("uid", "keep", pl.col("repeats").cast(pl.Int32))
        for path in (ours, folder / "pandas.parquet")
    ]
    if not decided[0].equals(decided[1]) or not decided[0]["keep"].any():
        kept = [int(decisions["keep"].sum()) for decisions in decided]
        raise RuntimeError(f"the two sides keep different samples: {kept[0]} and {kept[1]}")


def search_tables(rows: int) -> float:
    """Near hashes by tables."""
    hashes = _hashes(rows)
    start_clock()
    near_hashes(pl.Series(hashes), np.arange(rows), 4)
    return float(rows)


def search_pairs(rows: int) -> float:
    """Near hashes by comparing all pairs, in blocks."""
    hashes = _hashes(rows)
    start_clock()
    kept = np.ones(rows, bool)
    for start in range(0, rows, 256):
        near = np.bitwise_count(hashes[start : start + 256, None] ^ hashes[None, : start + 256]) <= 4
        for row in np.flatnonzero(near.sum(axis=1) > 1):
            earlier = np.flatnonzero(near[row, : start + row])
            kept[start + row] = not kept[earlier].any()
    return float(rows)


def _hashes(rows: int) -> np.ndarray:
    """Random hashes; a tenth of them are within 4 bits of another one."""
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, rows, dtype=np.uint64)
    for _ in range(4):
        hashes[: rows // 10] ^= np.uint64(1) << rng.integers(0, 64, rows // 10, dtype=np.uint64)
    near = hashes[rows // 2 : rows // 2 + rows // 10].copy()
    for _ in range(4):
        near ^= np.uint64(1) << rng.integers(0, 64, len(near), dtype=np.uint64)
    hashes[: len(near)] = near
    return hashes
