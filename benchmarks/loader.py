"""Loading speed and how well each loader shuffles: ours against webdataset, wids, Megatron-Energon and litdata.

The release, the decode, the crop and the samples that may be shuffled together are the same for all. Energon and
litdata are measured where they are installed.
"""

from __future__ import annotations

import itertools
import json
import statistics
import tempfile
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import polars as pl

from benchmarks.harness import Row, Run, measure
from benchmarks.speed.loaders import BATCH, LOADERS, SHARD_MB, SHUFFLE, measure_loader
from benchmarks.speed.release import write_release


def run(quick: bool) -> list[Row]:
    """A row for each peer and number of workers; the notes say how well each shuffles."""
    samples, rounds = (1024, 1) if quick else (4096, 3)
    with tempfile.TemporaryDirectory(prefix="mmdata-loader-") as folder:
        workspace = write_release(Path(folder) / "release", samples, SHARD_MB)
        index = workspace.releases_dir / (workspace.releases_dir / "latest").read_text().strip() / "index.parquet"
        places = places_of(pl.read_parquet(index.path, columns=["uid", "shard", "offset"]))
        present = [name for name in LOADERS if name == "ours" or is_installed(name)]
        rows: list[Row] = []
        for workers in (1, 2):
            runs: dict[str, list[Run]] = {name: [] for name in present}
            shuffles: dict[str, str] = {}
            for _ in range(rounds):
                for name in present:  # in turn, so that what else runs on the machine slows all of them
                    out = Path(folder) / "keys.json"
                    arguments = (name, str(workspace.root), workers, max(samples, 8 * BATCH), str(out))
                    runs[name].append(measure(measure_loader, *arguments))
                    shuffles[name] = shuffle_quality(json.loads(out.read_text()), places)
            rows += [_row(name, workers, runs, shuffles) for name in present if name != "ours"]
    return rows


def is_installed(name: str) -> bool:
    """Whether a peer's module can be found."""
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # not even the package that it is in
        return False


def places_of(index: pl.DataFrame) -> dict[str, tuple[str, float]]:
    """The shard of each sample, and its place in the release's order as a share of all. Args: uid, shard, offset."""
    ordered = index.sort("shard", "offset")
    return {
        uid: (shard, at / len(ordered)) for at, (uid, shard) in enumerate(ordered.select("uid", "shard").iter_rows())
    }


def shuffle_quality(batches: Sequence[Sequence[str]], places: dict[str, tuple[str, float]]) -> str:
    """How well batches of uids mix a release: in words for a row's note.

    The largest share of a batch that comes from one shard, averaged over batches (a perfect shuffle of S equal shards
    comes a little over 1/S); and how far apart in the release two samples are that follow each other, as a share of a
    perfect shuffle's distance, which is a third of the release.
    """
    shares = [max(Counter(places[uid][0] for uid in batch).values()) / len(batch) for batch in batches]
    order = [places[uid][1] for batch in batches for uid in batch]
    distances = [abs(after - before) for before, after in itertools.pairwise(order)]
    return f"{statistics.mean(shares):.0%} of a batch from one shard, neighbours {statistics.mean(distances) * 3:.0%}"


def _row(name: str, workers: int, runs: dict[str, list[Run]], shuffles: dict[str, str]) -> Row:
    ours, peer = (statistics.median(run.work / run.wall_s for run in runs[side]) for side in ("ours", name))
    return Row(
        f"load {BATCH} a batch, shuffled among {SHUFFLE:,}: {workers} worker{'s'[: workers > 1]}, {name}",
        "samples/s",
        ours,
        peer,
        max(run.peak_mib for run in runs["ours"]),
        max(run.peak_mib for run in runs[name]),
        goal=1.0,
        note=f"ours: {shuffles['ours']}; peer: {shuffles[name]}",
    )
