"""The value of the data: `mmdata compare` of the release, of the raw corpus, and of the release without balance.

python -m benchmarks.data_worth [--quick] [--corpus corpus.yaml [--truth truth.parquet]] [--steps N] [--seeds N]
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from upath import UPath

from benchmarks.harness import Row
from mmdata.cli.compare import print_outcome
from mmdata.config.load import load_corpus
from mmdata.demo.demo_folder import DemoCorpus, make_demo
from mmdata.demo.web_server import DemoServer
from mmdata.download.stage import fetch_part
from mmdata.score.stage import score_part
from mmdata.sources.catalog import update_catalog
from mmdata.takedown.read_part import read_part
from mmdata.workspace.layout import Workspace
from training.compare.experiment import compare
from training.compare.outcome import Outcome
from training.compare.settings import experiment_of

UNBALANCED = "unbalanced:select.balance.max_ratio=null;select.oversample.max_repeats=1"


@dataclass(frozen=True, slots=True)
class Setting:
    """The size of the experiment.

    Args:
        corpus: corpus.yaml of a built corpus; None: build the demo with `rows` rows.
        truth: table of which captions are true, and of which kind; None: it is not known (for the demo it is).
        steps: of each training; None: those of the corpus.
    """

    corpus: Path | None = None
    truth: Path | None = None
    rows: int = 4000
    steps: int | None = None
    seeds: int = 10


QUICK = Setting(rows=400, steps=10, seeds=2)


def run(quick: bool) -> list[Row]:
    """Print the comparison; the rows have recall@10 of the release against the two others."""
    with tempfile.TemporaryDirectory(prefix="mmdata-worth-") as folder:
        return measure_worth(QUICK if quick else Setting(), Path(folder))


def measure_worth(setting: Setting, folder: Path) -> list[Row]:
    """Build the demo if no corpus is given, compare and print. What lies in `folder` already is not done again."""
    if setting.corpus is None:
        demo = build_demo(folder / "demo", setting.rows)
        setting = replace(setting, corpus=demo.config_path, truth=demo.truth_path)
    assert setting.corpus is not None
    arms = ["raw", UNBALANCED, f"release:{setting.corpus}"]
    corpus = load_corpus(setting.corpus)
    given = {"steps": setting.steps, "seeds": setting.seeds, "truth": setting.truth}
    outcome = compare(corpus, experiment_of(corpus, arms, given), UPath((folder / "compare").resolve()))
    print_outcome(Console(width=180), outcome)
    return [_row(outcome, other) for other in ("raw", "unbalanced")]


def _row(outcome: Outcome, other: str) -> Row:
    metric = outcome.headline()
    floor = 0.5 / outcome.held_out  # half a hit, so that no ratio divides by zero
    ours, theirs = (max(sum(metric.seeds[name]) / outcome.seeds, floor) for name in ("release", other))
    note = f"release against {other}: {metric.differences[other, 'release'].word}"
    return Row(f"data worth: {metric.name}", "share", ours, theirs, 0.0, 0.0, note=note)


def build_demo(folder: Path, rows: int) -> DemoCorpus:
    """The offline demo corpus, fetched from its own web server on loopback, and scored."""
    demo = make_demo(folder, rows)
    corpus = load_corpus(demo.config_path)
    workspace = Workspace(corpus.workspace)
    with DemoServer(demo.site, port=demo.port):
        update_catalog(corpus, workspace)
        for part in workspace.catalog().parts:
            for stage in (read_part, fetch_part, score_part):
                stage(corpus, workspace, part)
    return demo


def main() -> None:
    """Compare the variants of a corpus, and print the comparison."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data_worth", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small input, only to see that it runs")
    parser.add_argument("--corpus", type=Path, help="corpus.yaml of a built workspace; by default the demo is built")
    parser.add_argument("--truth", type=Path, help="its truth.parquet, where there is one")
    parser.add_argument("--rows", type=int, help="rows of the demo")
    parser.add_argument("--steps", type=int, help="optimiser steps of each training")
    parser.add_argument("--seeds", type=int, help="trainings of each arm")
    parser.add_argument("--work", type=Path, help="keep everything in this folder, and continue from it")
    options = parser.parse_args()
    base = QUICK if options.quick else Setting()
    given = {name: getattr(options, name) for name in ("corpus", "truth", "rows", "steps", "seeds")}
    setting = replace(base, **{name: value for name, value in given.items() if value is not None})
    if options.work is not None:
        measure_worth(setting, options.work.resolve())
        return
    with tempfile.TemporaryDirectory(prefix="mmdata-worth-") as folder:
        measure_worth(setting, Path(folder))


if __name__ == "__main__":
    main()
