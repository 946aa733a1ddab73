"""Selection over generated metadata, against the same decisions in pandas: time, growth and memory.

Both sides read the same Parquet files (with the columns after the joins), filter, drop duplicate URLs and bytes,
balance the modalities, repeat rare concepts, and write a decision for every row, sorted by uid. Both must keep the same
samples equally often. Our side also reads the captions to find the modality, and gives a reason for every row.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from benchmarks.harness import Row, Run, compare, measure, start_clock
from mmdata.config import Select
from mmdata.samples import draws
from mmdata.select.candidates import Slice, compact, merge_candidates
from mmdata.select.decide import balance_and_repeat, drop_duplicates, judge
from mmdata.select.dedup import near_hashes
from mmdata.select.rates import Rates
from mmdata.select.selection_table import hex_uids, write_selection

FILE_ROWS = 250_000
SEED = 0
CLUSTERS = 1000
SELECT = Select.model_validate(
    {
        "filter": {"min_clip_score": 0.2, "languages": ["en"], "min_words": 3},
        "dedup": {"phash_bits": None, "semantic_eps": None},
        "balance": {"max_ratio": 3.0},
        "oversample": {"threshold": 0.001, "max_repeats": 4},
    }
)
MEMORY_GOAL_MIB = 2e9 / 2**20


def run(quick: bool) -> list[Row]:
    """The comparison at 1M rows (100k if quick), growth and memory at ten times as many, and the pHash search."""
    rows = 100_000 if quick else 1_000_000
    folder = Path(tempfile.mkdtemp(prefix="mmdata-bench-selection-"))
    try:
        small, large = folder / "small", folder / "large"
        generate(small, rows)
        row = compare(
            f"selection, {rows:,} rows",
            "rows/s",
            lambda: measure(select_ours, small, folder / "ours.parquet"),
            lambda: measure(select_pandas, small, folder / "pandas.parquet"),
            goal=5.0,
            note="filter, URL and sha256 dedup, modality balance, repeats; peer: pandas, same keep set",
        )
        check_same(folder / "ours.parquet", folder / "pandas.parquet")
        generate(large, 10 * rows)
        small_run = measure(select_ours, small, folder / "ours.parquet")
        large_run = measure(select_ours, large, folder / "ours.parquet")
        return [row, *_growth(10 * rows, small_run, large_run), _phash(rows, quick)]
    finally:
        shutil.rmtree(folder)


def _growth(rows: int, small_run: Run, large_run: Run) -> list[Row]:
    peaks = {"ours_peak_mib": large_run.peak_mib, "peer_peak_mib": 0.0, "lower_is_better": True}
    return [
        Row(
            f"selection, growth to {rows:,}",
            "times",
            large_run.wall_s / small_run.wall_s,
            10.0,
            **peaks,  # type: ignore[arg-type]
            goal=0.8,
            note=f"time for ten times the rows: {small_run.wall_s:.2f} s, then {large_run.wall_s:.2f} s; peer: linear",
        ),
        Row(
            f"selection, memory at {rows:,}",
            "MiB",
            large_run.peak_mib,
            MEMORY_GOAL_MIB,
            **peaks,  # type: ignore[arg-type]
            goal=1.0,
            note="peak resident memory; the peer is the goal of 2 GB",
        ),
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


# -- the two sides ----------------------------------------------------------------------------------------------


def select_ours(folder: Path, out: Path) -> float:
    """The metadata part of the selection, file by file, as the stage does it."""
    start_clock()
    frames, slices = [], []
    columns = [name for name in pq.read_schema(sorted(folder.iterdir())[0]).names if name != "signature"]
    for number, path in enumerate(sorted(folder.iterdir())):
        joined = pl.read_parquet(path, columns=columns)
        place = pl.lit(number, pl.UInt32).alias("place")
        frame = compact(joined, SELECT).with_columns(joined["cluster"], place)
        slices.append(Slice("web-000000", path.stem, len(frame)))
        frames.append(frame)
    del joined, frame
    candidates = merge_candidates(frames)
    cluster = candidates.drop_in_place("cluster").to_numpy()
    verdicts, _ = judge(candidates, SELECT)
    drop_duplicates(candidates, verdicts, SELECT.dedup)
    verdicts.settle()
    decision = balance_and_repeat(candidates, verdicts, cluster, SELECT, SEED, 0.0, Rates("benchmark"))
    write_selection(UPath(out), candidates, slices, verdicts, cluster, decision)
    return float(len(candidates))


def select_pandas(folder: Path, out: Path) -> float:
    """The same decisions in plain pandas."""
    start_clock()
    columns = ["uid", "url", "sha256", "status", "clip_score", "lang", "n_words", "signature", "cluster"]
    samples = pd.read_parquet(folder, columns=columns)
    rules = SELECT.filter
    good = samples[
        (samples["status"] == "success")
        & (samples["clip_score"] >= np.float32(rules.min_clip_score))
        & samples["lang"].isin(rules.languages or [])
        & (samples["n_words"] >= rules.min_words)
    ]
    best = good.sort_values(["clip_score", "uid"], ascending=[False, True])
    unique = best.drop_duplicates("url").drop_duplicates("sha256")
    unique = unique.assign(draw=draws(pl.Series(unique["uid"].to_numpy()), SEED, "modality").to_numpy())
    sizes = unique["signature"].value_counts()
    counted = sizes[sizes >= SELECT.balance.tail_share * len(unique)]
    cap = int(counted.min() * (SELECT.balance.max_ratio or 1))
    kept = unique[unique.groupby("signature")["draw"].rank(method="first") <= cap]
    share = kept.groupby(["cluster", "signature"])["uid"].transform("size") / len(kept)
    concepts = kept.groupby(["cluster", "signature"]).ngroups
    threshold = min(SELECT.oversample.threshold, 1 / concepts)
    factor = np.sqrt(threshold / share).clip(1, SELECT.oversample.max_repeats)
    draw = draws(pl.Series(kept["uid"].to_numpy()), SEED, "repeat").to_numpy()
    whole = np.floor(factor)
    samples["repeats"] = 0
    samples.loc[kept.index, "repeats"] = (whole + (draw < factor - whole)).astype(np.int64)
    samples["keep"] = samples["repeats"] > 0
    decided = samples[["uid", "signature", "clip_score", "cluster", "keep", "repeats"]].sort_values("uid")
    decided.to_parquet(out, index=False, compression="zstd")
    return float(len(samples))


def check_same(ours: Path, peer: Path) -> None:
    """Both sides keep the same samples, equally often."""
    decided = [pl.read_parquet(path).select("uid", "keep", pl.col("repeats").cast(pl.Int32)) for path in (ours, peer)]
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


# -- the data ---------------------------------------------------------------------------------------------------


def generate(folder: Path, rows: int) -> None:
    """Write files of joined metadata: some repeated URLs and bytes, three signatures at 80:15:5, Zipf clusters."""
    folder.mkdir()
    for number in range(-(-rows // FILE_ROWS)):
        count = min(FILE_ROWS, rows - number * FILE_ROWS)
        pq.write_table(_file(number, count, rows), folder / f"{number:04d}.parquet", compression="snappy")


def _file(number: int, count: int, rows: int) -> pa.Table:
    rng = np.random.default_rng(number)
    ids = rng.integers(0, 2**64, (2, count), dtype=np.uint64)
    hosts = rng.integers(0, int(rows * 5), count, dtype=np.uint64)
    content = rng.integers(0, int(rows * 5), count, dtype=np.uint64)
    kind = rng.choice(3, count, p=[0.8, 0.15, 0.05])
    words = rng.integers(1, 20, count)
    score = rng.normal(0.28, 0.06, count).astype(np.float32)
    score[rng.random(count) < 0.001] = np.nan
    alphabet = np.array(["a", "photo", "of", "the", "red", "house", "by", "sea"])
    phrases = pa.array([" ".join(alphabet[rng.integers(0, 8, n + 1)]) for n in range(1, 20) for _ in range(50)])
    caption = phrases.take(pa.array((words - 1) * 50 + rng.integers(0, 50, count)))
    urls = pl.select(pl.format("https://images.example.org/a/{}/picture.jpg", pl.lit(pl.Series(hosts)))).to_series()
    sha = pa.compute.binary_join_element_wise(
        hex_uids(content, content * np.uint64(7919)), hex_uids(~content, content), ""
    )
    picked = {
        "kind": pa.array(["image", "image", "video"]).take(pa.array(kind)),
        "signature": pa.array(["image+text", "image", "text+video"]).take(pa.array(kind)),
        "caption": pa.compute.if_else(pa.array(kind == 1), None, caption),
        "status": pa.array(["success", "failed_to_download"]).take(pa.array((rng.random(count) < 0.2).astype(int))),
        "lang": pa.array(["en", "de", "zh"]).take(pa.array(rng.choice(3, count, p=[0.7, 0.2, 0.1]))),
    }
    return pa.table(
        {
            "uid": hex_uids(*ids),
            "url": urls.to_arrow(compat_level=pl.CompatLevel.oldest()),
            "sha256": sha,
            **picked,
            "error": pa.compute.if_else(pa.compute.equal(picked["status"], "success"), None, "http_404"),
            "problem": pa.nulls(count, pa.string()),
            "features_problem": pa.nulls(count, pa.string()),
            "copies": pa.array(np.ones(count, np.int32)),
            "clip_score": pa.array(score),
            "phash": pa.array(ids[0]),
            "audio_rms_db": pa.nulls(count, pa.float32()),
            "n_words": pa.array(words.astype(np.int32)),
            "cluster": pa.array(np.minimum(rng.zipf(1.3, count) - 1, CLUSTERS - 1).astype(np.int32)),
        }
    )


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
