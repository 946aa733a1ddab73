"""How long a person waits for a start.

`mmdata --help` against `dagster --help`, the code location against Dagster alone, and a build that has nothing to do
against the same through the Dagster graph.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.download import serving, urls
from benchmarks.harness import Row, Run, measure

BIN = Path(sys.executable).parent
HELP_GOAL_S = 0.5
ROWS = 40

OURS_HELP = (str(BIN / "mmdata"), "--help")
PEER_HELP = (str(BIN / "dagster"), "--help")
OURS_LOAD = (sys.executable, "-c", "from pipelines.definitions import defs; defs.get_repository_def()")
PEER_LOAD = (sys.executable, "-c", "import dagster")


def run(quick: bool) -> list[Row]:
    """Seconds from start to exit, medians of alternating fresh processes after one to warm the file cache."""
    rounds = 2 if quick else 7
    with tempfile.TemporaryDirectory(prefix="mmdata-bench-startup-") as folder:
        build = _built_corpus(Path(folder))
        nothing_to_do = _row(
            f"a build of {ROWS} rows with nothing to do",
            build,
            (*build, "--verbose"),
            rounds,
            "peer: the same through the Dagster graph",
        )
    return [
        _row(
            "mmdata --help", OURS_HELP, PEER_HELP, rounds, f"peer: dagster --help; ours to stay under {HELP_GOAL_S} s"
        ),
        _row(
            "load the code location", OURS_LOAD, PEER_LOAD, rounds, "peer: import dagster alone, so 1.0 is the ceiling"
        ),
        nothing_to_do,
    ]


def _built_corpus(folder: Path) -> tuple[str, ...]:
    """Build a corpus of small pictures; returns the command that builds it again."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    config = folder / "corpus.yaml"
    command = (str(BIN / "mmdata"), "build", "--config", str(config))
    with serving((160, 120)) as base:
        captions = [f"soft shapes and some grain, number {number}" for number in range(ROWS)]
        pq.write_table(pa.table({"URL": urls(base, ROWS), "TEXT": captions}), folder / "pairs.parquet")
        settings = {
            "workspace": "workspace",
            "sources": [{"name": "web", "kind": "laion", "files": "pairs.parquet"}],
            "download": {"image_size": 160, "allow_hosts": ["127.0.0.0/8"], "per_host": 32},
            "score": {"model": "demo"},
        }
        config.write_text(json.dumps(settings))
        _start(*command)
    return command


def _row(name: str, ours: tuple[str, ...], peer: tuple[str, ...], rounds: int, note: str) -> Row:
    _start(*ours)
    _start(*peer)
    pairs = [(measure(_start, *ours), measure(_start, *peer)) for _ in range(rounds)]
    return Row(
        name,
        "s",
        ours=statistics.median(a.wall_s for a, _ in pairs),
        peer=statistics.median(b.wall_s for _, b in pairs),
        ours_peak_mib=_peak_mib([a for a, _ in pairs]),
        peer_peak_mib=_peak_mib([b for _, b in pairs]),
        lower_is_better=True,
        note=note,
    )


def _start(*command: str) -> float:
    environment = {name: value for name, value in os.environ.items() if name != "MMDATA_CONFIG"}
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return 1.0


def _peak_mib(runs: list[Run]) -> float:
    return max(one.peak_mib for one in runs)
