"""Timed captions to clips on a generated HowTo100M: our stream against json.load and pandas on the same files.

Both sides read the index and `raw_caption.json`, cut overlapping captions, merge them into clips and write the clips
as Parquet; both must write the same clips. Our side also hashes the index, removes repetition and tags, adds a uid and
the captions of each clip, and publishes slice by slice. Memory matters: the real captions are over 10 GB.

    python -m benchmarks.sources [--clips N]      # 1,000,000 by default, and a tenth of them
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pandas as pd
import polars as pl
from rich.console import Console

from benchmarks.harness import Row, compare, measure, start_clock
from mmdata.config import Clips, Corpus
from mmdata.config.load import parse_corpus
from mmdata.sources.catalog import update_catalog
from mmdata.takedown.read_part import read_part
from mmdata.workspace.layout import Workspace

CAPTIONS_PER_VIDEO = 112  # as in HowTo100M: 136 million in 1.2 million videos
CLIPS_PER_VIDEO = 27  # approximately, of the generated captions
WATCH = "https://www.youtube.com/watch?v="
GROWTH = 10


def run(quick: bool) -> list[Row]:
    """Clips per second at 100,000 clips (6,000 if quick), and memory there and at ten times as many."""
    return sized(6_000 if quick else 100_000, rounds=1 if quick else 3)


def sized(clips: int, rounds: int) -> list[Row]:
    """Compare at a size, and compare memory at ten times that size."""
    folder = Path(tempfile.mkdtemp(prefix="mmdata-bench-sources-"))
    try:
        small, large = folder / "small", folder / "large"
        measure(generate, small, clips // CLIPS_PER_VIDEO)  # in a child: later children inherit this process's memory
        ours, peer = partial(measure, clips_ours, small), partial(measure, clips_pandas, small)
        clip_count = ours().work  # also warms the file cache
        row = compare(
            f"captions to {clip_count:,.0f} clips",
            "clips/s",
            ours,
            peer,
            rounds=rounds,
            note="index and raw_caption.json to clips; peer: json.load, a loop, pandas; same clips checked",
        )
        measure(check_same, small)
        measure(generate, large, GROWTH * clips // CLIPS_PER_VIDEO)
        small_run, large_run, peer_run = ours(), measure(clips_ours, large), measure(clips_pandas, large)
        measure(check_same, large)
        captions_mb = (large / "raw_caption.json").stat().st_size / 1e6
        grown = Row(
            f"captions to {large_run.work:,.0f} clips, memory",
            "MiB",
            large_run.peak_mib,
            peer_run.peak_mib,
            large_run.peak_mib,
            peer_run.peak_mib,
            lower_is_better=True,
            note=f"{captions_mb:,.0f} MB of captions; ours at a tenth: {small_run.peak_mib:,.0f} MiB; "
            f"clips/s: {large_run.work / large_run.wall_s:,.0f} against {peer_run.work / peer_run.wall_s:,.0f}",
        )
        constant = Row(
            "memory for ten times the captions",
            "times",
            large_run.peak_mib / small_run.peak_mib,
            1.0,
            large_run.peak_mib,
            0.0,
            goal=0.9,
            lower_is_better=True,
            note=f"ours: {small_run.peak_mib:,.0f} MiB, then {large_run.peak_mib:,.0f}; peer: constant",
        )
        return [row, grown, constant]
    finally:
        shutil.rmtree(folder)


# -- the two sides ----------------------------------------------------------------------------------------------


def clips_ours(folder: Path) -> float:
    """Catalogue and rows of all parts, from nothing."""
    corpus = _corpus(folder)
    shutil.rmtree(corpus.workspace, ignore_errors=True)
    workspace = Workspace(corpus.workspace)
    start_clock()
    update_catalog(corpus, workspace)
    parts = workspace.catalog().live_parts()
    return float(sum(read_part(corpus, workspace, part.name).counts["usable"] for part in parts))


def clips_pandas(folder: Path) -> float:
    """The same clips in plain pandas, with everything in memory."""
    start_clock()
    index = pd.read_csv(folder / "index.csv", dtype={"task_id": str})
    with (folder / "raw_caption.json").open(encoding="utf-8") as file:
        captions = json.load(file)
    rows: list[dict[str, Any]] = []
    columns = [str(name) for name in index.columns]
    for values in index.itertuples(index=False, name=None):
        video = dict(zip(columns, values, strict=True))
        video_captions = captions.get(video["video_id"])
        for group in _merge_captions(video_captions) if video_captions else ():
            clip = {"start_s": group[0][0], "end_s": group[-1][1], "caption": " ".join(text for _, _, text in group)}
            rows.append({"url": WATCH + str(video["video_id"]), **video, **clip})
    pd.DataFrame(rows).to_parquet(folder / "pandas.parquet", index=False, compression="zstd")
    return float(len(rows))


def _merge_captions(lists: dict[str, list[Any]]) -> list[list[tuple[float, float, str]]]:
    limits = Clips()
    captions = sorted(zip(lists["start"], lists["end"], lists["text"], strict=True))
    ends = [min(end, after[0]) for (_, end, _), after in zip(captions, [*captions[1:], (1e9, 1e9, "")], strict=True)]
    groups: list[list[tuple[float, float, str]]] = []
    for (start, _, text), end in zip(captions, ends, strict=True):
        last = groups[-1] if groups else None
        near = last is not None and start - last[-1][1] <= limits.max_gap_s and end - last[0][0] <= limits.max_clip_s
        if last is not None and near and last[-1][1] - last[0][0] < limits.min_clip_s:
            last.append((start, end, text))
        else:
            groups.append([(start, end, text)])
    for at in range(len(groups) - 1, 0, -1):
        group, before = groups[at], groups[at - 1]
        short = group[-1][1] - group[0][0] < limits.min_clip_s
        near = group[0][0] - before[-1][1] <= limits.max_gap_s and group[-1][1] - before[0][0] <= limits.max_clip_s
        if short and near:
            before += groups.pop(at)
    return groups


def check_same(folder: Path) -> float:
    """Both sides give the same clips."""
    keys = ["url", "start_s", "end_s", "caption"]
    tables = (Path(_corpus(folder).workspace) / "parts").glob("*/rows/*.parquet")
    ours = pl.scan_parquet(sorted(tables)).filter(pl.col("problem").is_null()).select(keys).sort(keys)
    peer = pl.scan_parquet(folder / "pandas.parquet").select(keys).sort(keys)
    if not ours.collect().equals(peer.collect()):
        raise RuntimeError(f"{folder}: the two sides give different clips")
    return 1.0


def _corpus(folder: Path) -> Corpus:
    source = {"name": "howto", "kind": "howto100m", "files": str(folder / "index.csv")}
    source["captions"] = str(folder / "raw_caption.json")
    return parse_corpus({"workspace": str(folder / "workspace"), "sources": [source], "score": {"model": "demo"}})


# -- the data ---------------------------------------------------------------------------------------------------


def generate(folder: Path, videos: int) -> float:
    """Write an index and its captions: overlapping in time as speech recognition gives them, with pauses.

    The JSON is in another order than the index, holds videos that are not in it, and lacks some that are.
    """
    folder.mkdir()
    random = Random(videos)
    words = [[f"{letter}{n:x}" for n in range(1000)] for letter in "wz"]  # so that no two neighbours share words
    ids = ["".join(random.choices("abcdefghijklmnopqrstuvwxyzABCDEF0123456789_-", k=11)) for _ in range(videos)]
    with (folder / "index.csv").open("w") as file:
        file.write("video_id,category_1,category_2,rank,task_id\n")
        for n, video in enumerate(ids[: videos * 49 // 50]):
            file.write(f"{video},Food and Entertaining,Recipes,{n % 200},{n // 200}\n")
    random.shuffle(ids)
    with (folder / "raw_caption.json").open("w") as file:
        file.write("{")
        for n, video in enumerate(ids[videos // 50 :]):
            file.write(f'{", " if n else ""}"{video}": {json.dumps(_video_captions(random, words))}')
        file.write("}")
    return float(videos)


def _video_captions(random: Random, words: list[list[str]]) -> dict[str, list[Any]]:
    starts: list[float] = []
    ends: list[float] = []
    texts: list[str] = []
    start_s = 0.0
    for n in range(CAPTIONS_PER_VIDEO):
        starts.append(round(start_s, 2))
        ends.append(round(start_s + random.uniform(3, 6), 2))
        texts.append(" ".join(random.choices(words[n % 2], k=random.randint(4, 9))))
        start_s += random.uniform(2, 4) if random.random() < 0.97 else random.uniform(10, 30)
    return {"start": starts, "end": ends, "text": texts}


def main() -> None:
    """Measure the reading of timed captions at two sizes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sources", description=__doc__)
    parser.add_argument(
        "--clips", type=int, default=1_000_000, help="clips at the larger of the two sizes, approximately"
    )
    console = Console(width=200)
    for row in sized(parser.parse_args().clips // GROWTH, rounds=3):
        console.print(f"{row.name}: {row.ours:,.4g} against {row.peer:,.4g} {row.unit}, ratio {row.ratio:.2f}")
        console.print(f"    peak {row.ours_peak_mib:,.0f} / {row.peer_peak_mib:,.0f} MiB; {row.note}")


if __name__ == "__main__":
    main()
