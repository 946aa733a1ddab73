"""The value of the data: the tiny preset's align stage on the release, on the raw corpus, and without balance.

All three have the same steps and seeds, and one held-out set on which none was trained. The verdicts come from the
confidence intervals, and may be `worse` as well as `better`.

    python -m benchmarks.data_worth [--quick] [--corpus corpus.yaml [--truth truth.parquet]] [--steps N] [--seeds N]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.harness import Row
from benchmarks.worth.corpora import VARIANTS, Released, build_demo, carve, release
from benchmarks.worth.held_out import COSINE_EPS, PHASH_BITS, Facts, HeldOut, hold_out, read_facts
from benchmarks.worth.recall import Metric, held_out_ranks, metrics
from benchmarks.worth.verdict import Difference, difference, seed_means, tally
from mmdata.config import Corpus
from mmdata.config.load import load_corpus
from mmdata.errors import DataError

HELD_OUT_SHARE, MAX_HELD_OUT = 0.15, 400


@dataclass(frozen=True, slots=True)
class Setting:
    """The size of the experiment.

    Args:
        corpus: corpus.yaml of a built corpus; None: build the demo with `rows` rows.
        truth: table of which captions are true, and of which kind; None: it is not known (for the demo it is).
        steps, batch: of each training; None: those of the preset.
    """

    corpus: Path | None = None
    truth: Path | None = None
    rows: int = 4000
    steps: int | None = None
    batch: int | None = None
    seeds: int = 3


QUICK = Setting(rows=300, steps=4, batch=16, seeds=2)


def run(quick: bool) -> list[Row]:
    """Print the whole table; the rows have recall@5 of the release against the two others."""
    with tempfile.TemporaryDirectory(prefix="mmdata-worth-") as folder:
        return measure_worth(QUICK if quick else Setting(), Path(folder))


def measure_worth(setting: Setting, folder: Path) -> list[Row]:
    """Build, release, train, evaluate and print. Steps whose results lie in `folder` are not repeated."""
    console = Console(width=180)
    started = time.monotonic()
    if setting.corpus is None:
        demo = build_demo(folder / "demo", setting.rows)
        setting = replace(setting, corpus=demo.config_path, truth=demo.truth_path)
    assert setting.corpus is not None
    corpus, truth = load_corpus(setting.corpus), setting.truth
    facts = read_facts(corpus, truth)
    dedup = corpus.select.dedup
    bits = PHASH_BITS if dedup.phash_bits is None else dedup.phash_bits
    eps = COSINE_EPS if dedup.semantic_eps is None else dedup.semantic_eps
    held_out = hold_out(facts, HELD_OUT_SHARE, MAX_HELD_OUT, corpus.seed, bits, eps)
    released = _release_all(corpus, facts, held_out, folder)
    _describe(console, setting, facts, held_out, released)
    chosen = facts.frame[held_out.chosen]
    ranks = {name: _train_and_rank(setting, folder, name, chosen["uid"].to_list(), console) for name in VARIANTS}
    recalls = metrics(chosen["concept"].to_list(), Counter(facts.frame[held_out.pool]["concept"].to_list()))
    rows = _compare(console, recalls, ranks)
    console.print(f"{time.monotonic() - started:.0f} s in all")
    return rows


def _release_all(corpus: Corpus, facts: Facts, held_out: HeldOut, folder: Path) -> dict[str, Released]:
    uids = facts.frame["uid"]
    truth = facts.frame.select("uid", "true_pair") if facts.knows_truth else None
    chosen = carve(corpus, folder / "chosen", uids[held_out.chosen].to_list())
    release(corpus, chosen, "raw", folder / "held_out", truth)
    pool = carve(corpus, folder / "pool", uids[held_out.pool].to_list())
    return {name: release(corpus, pool, name, folder / name, truth) for name in VARIANTS}


def _train_and_rank(setting: Setting, folder: Path, name: str, held_out: list[str], console: Console) -> np.ndarray:
    """Ranks S,2,N of the held-out samples by the models of each seed.

    Args:
        held_out: their uids, sorted: the order of the ranks.
    """
    from training.config import load_train_config
    from training.run import train

    ranks_by_seed = []
    for seed in range(setting.seeds):
        never = 1_000_000
        overrides = [f"seed={seed}", f"align.validate_every={never}", f"align.checkpoint_every={never}"]
        overrides += [f"align.steps={setting.steps}"] if setting.steps else []
        overrides += [f"align.batch_size={setting.batch}"] if setting.batch else []
        config = load_train_config("tiny", None, overrides)
        output = folder / "runs" / f"{name}-{config.align.steps}-steps-seed-{seed}"
        result = train(str(folder / name), ["align"], config, output)[0]
        if result.stopped == "signal":
            raise KeyboardInterrupt
        uids, ranks = held_out_ranks(result.checkpoint, folder / "held_out", folder / "cache")
        order = np.argsort(uids)
        if [uids[at] for at in order] != held_out:
            raise DataError(f"{folder / 'held_out'}: not every held-out sample can be read")
        losses = f"loss {result.first_loss:.2f} to {result.last_loss:.2f}"
        console.print(f"{name}, seed {seed}: {result.steps} steps, {losses}, {result.seconds:.0f} s")
        ranks_by_seed.append(ranks[:, order])
    return np.stack(ranks_by_seed)


def _describe(
    console: Console, setting: Setting, facts: Facts, held_out: HeldOut, released: Mapping[str, Released]
) -> None:
    table = Table(title="training sets")
    for column in ("", "samples", "distinct", "true captions"):
        table.add_column(column)
    for name, variant in released.items():
        share = "not known" if variant.true_share is None else f"{variant.true_share:.1%}"
        table.add_row(name, f"{variant.samples:,}", f"{variant.distinct:,}", share)
    console.print(table)
    left_out = len(facts.frame) - len(held_out.pool) - len(held_out.chosen)
    console.print(
        f"held out: {len(held_out.chosen)} pictures; left out of training because they are too similar: {left_out}; "
        f"{setting.seeds} seeds; chance of recall@1: {1 / max(1, len(held_out.chosen)):.2%}"
    )


def _compare(console: Console, recalls: list[Metric], ranks: Mapping[str, np.ndarray]) -> list[Row]:
    """Print each metric and the verdicts; `ranks` has S,2,N of each variant."""
    table = Table(title="mean ± standard deviation over seeds; difference with its 95% interval")
    others = [name for name in VARIANTS if name != "release"]
    for column in ("metric", *VARIANTS, *(f"release - {name}" for name in others)):
        table.add_column(column)
    rows: list[Row] = []
    differences: dict[str, list[Difference]] = {name: [] for name in others}
    for metric in recalls:
        hits = {name: np.stack([metric.hits(seed_ranks) for seed_ranks in ranks[name]]) for name in VARIANTS}
        means = {name: seed_means(hits[name], metric.strata) for name in VARIANTS}
        cells = [f"{m.mean():.3f} ± {m.std(ddof=1) if len(m) > 1 else float('nan'):.3f}" for m in means.values()]
        for name in others:
            gain = difference(hits["release"], hits[name], metric.strata)
            differences[name].append(gain)
            cells.append(f"{gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}] {gain.word}")
            if metric.k == 5:
                floor = 0.5 / len(metric.strata)  # half a hit, so that no ratio divides by zero
                ours, theirs = (max(float(means[side].mean()), floor) for side in ("release", name))
                note = f"release against {name}: {gain.word}"
                rows.append(Row(f"data worth: {metric.name}", "share", ours, theirs, 0.0, 0.0, note=note))
        table.add_row(metric.name, *cells)
    console.print(table)
    for name, gains in differences.items():
        console.print(f"verdict, release against {name}: {tally([gain.word for gain in gains])}")
    return rows


def main() -> None:
    """Train on the variants of a corpus and print the comparison."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data_worth", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small input, only to see that it runs")
    parser.add_argument("--corpus", type=Path, help="corpus.yaml of a built workspace; by default the demo is built")
    parser.add_argument("--truth", type=Path, help="its truth.parquet, where there is one")
    parser.add_argument("--rows", type=int, help="rows of the demo")
    parser.add_argument("--steps", type=int, help="optimiser steps of each training; by default the preset's")
    parser.add_argument("--seeds", type=int, help="trainings of each variant")
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
