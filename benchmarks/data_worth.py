"""What the data is worth: the tiny preset's align stage on the release, on the raw corpus, and without balance.

Equal steps, equal seeds, one held-out set that none of the three was trained on. There is no side to be on: the
verdicts come from the intervals, and read `worse` as readily as `better`.

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

HELD_OUT_SHARE, HELD_OUT_MOST = 0.15, 400


@dataclass(frozen=True, slots=True)
class Setting:
    """How much is done.

    Args:
        corpus: a built corpus' corpus.yaml; None: the demo is built, of `rows` rows.
        truth: which captions are true, and of what kind; None: not known (of a built demo it is).
        steps, batch: of each training; None: the preset's.
    """

    corpus: Path | None = None
    truth: Path | None = None
    rows: int = 4000
    steps: int | None = None
    batch: int | None = None
    seeds: int = 3


QUICK = Setting(rows=300, steps=4, batch=16, seeds=2)


def run(quick: bool) -> list[Row]:
    """Prints the whole table; rows: recall@5 of the release against either other side."""
    with tempfile.TemporaryDirectory(prefix="mmdata-worth-") as folder:
        return measured(QUICK if quick else Setting(), Path(folder))


def measured(setting: Setting, folder: Path) -> list[Row]:
    """Build, release, train, evaluate, print. What lies finished in `folder` is not done again."""
    console = Console(width=180)
    begun = time.monotonic()
    if setting.corpus is None:
        demo = build_demo(folder / "demo", setting.rows)
        setting = replace(setting, corpus=demo.config_path, truth=demo.truth_path)
    assert setting.corpus is not None
    corpus, truth = load_corpus(setting.corpus), setting.truth
    facts = read_facts(corpus, truth)
    dedup = corpus.select.dedup
    bits = PHASH_BITS if dedup.phash_bits is None else dedup.phash_bits
    eps = COSINE_EPS if dedup.semantic_eps is None else dedup.semantic_eps
    held = hold_out(facts, HELD_OUT_SHARE, HELD_OUT_MOST, corpus.seed, bits, eps)
    released = _release_all(corpus, facts, held, folder)
    _describe(console, setting, facts, held, released)
    chosen = facts.frame[held.chosen]
    ranks = {name: _trained(setting, folder, name, chosen["uid"].to_list(), console) for name in VARIANTS}
    asked = metrics(chosen["concept"].to_list(), Counter(facts.frame[held.pool]["concept"].to_list()))
    rows = _compare(console, asked, ranks)
    console.print(f"{time.monotonic() - begun:.0f} s in all")
    return rows


def _release_all(corpus: Corpus, facts: Facts, held: HeldOut, folder: Path) -> dict[str, Released]:
    uids = facts.frame["uid"]
    known = facts.frame.select("uid", "true_pair") if facts.knows_truth else None
    chosen = carve(corpus, folder / "chosen", uids[held.chosen].to_list())
    release(corpus, chosen, "raw", folder / "held_out", known)
    pool = carve(corpus, folder / "pool", uids[held.pool].to_list())
    return {name: release(corpus, pool, name, folder / name, known) for name in VARIANTS}


def _trained(setting: Setting, folder: Path, name: str, held_out: list[str], console: Console) -> np.ndarray:
    """Ranks S,2,N of the held-out samples by the models of each seed.

    Args:
        held_out: their uids, sorted: the order of the ranks.
    """
    from training.config import load_train_config
    from training.run import train

    found = []
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
        found.append(ranks[:, order])
    return np.stack(found)


def _describe(
    console: Console, setting: Setting, facts: Facts, held: HeldOut, released: Mapping[str, Released]
) -> None:
    table = Table(title="what was trained on")
    for column in ("", "samples", "distinct", "true captions"):
        table.add_column(column)
    for name, one in released.items():
        share = "not known" if one.true_share is None else f"{one.true_share:.1%}"
        table.add_row(name, f"{one.samples:,}", f"{one.distinct:,}", share)
    console.print(table)
    left_out = len(facts.frame) - len(held.pool) - len(held.chosen)
    console.print(
        f"held out: {len(held.chosen)} pictures; too like them to be trained on: {left_out}; "
        f"{setting.seeds} seeds; chance of recall@1: {1 / max(1, len(held.chosen)):.2%}"
    )


def _compare(console: Console, asked: list[Metric], ranks: Mapping[str, np.ndarray]) -> list[Row]:
    """Prints metric by metric, and the verdicts; `ranks` holds S,2,N of each variant."""
    table = Table(title="mean ± standard deviation over seeds; difference with its 95% interval")
    others = [name for name in VARIANTS if name != "release"]
    for column in ("metric", *VARIANTS, *(f"release - {name}" for name in others)):
        table.add_column(column)
    rows: list[Row] = []
    found: dict[str, list[Difference]] = {name: [] for name in others}
    for metric in asked:
        hits = {name: np.stack([metric.hits(one) for one in ranks[name]]) for name in VARIANTS}
        means = {name: seed_means(hits[name], metric.strata) for name in VARIANTS}
        cells = [
            f"{one.mean():.3f} ± {one.std(ddof=1) if len(one) > 1 else float('nan'):.3f}" for one in means.values()
        ]
        for name in others:
            one = difference(hits["release"], hits[name], metric.strata)
            found[name].append(one)
            cells.append(f"{one.mean:+.3f} [{one.low:+.3f}, {one.high:+.3f}] {one.word}")
            if metric.k == 5:
                floor = 0.5 / len(metric.strata)  # half a hit, lest a ratio divide by nothing
                ours, theirs = (max(float(means[side].mean()), floor) for side in ("release", name))
                note = f"release against {name}: {one.word}"
                rows.append(Row(f"data worth: {metric.name}", "share", ours, theirs, 0.0, 0.0, note=note))
        table.add_row(metric.name, *cells)
    console.print(table)
    for name, differences in found.items():
        console.print(f"verdict, release against {name}: {tally([one.word for one in differences])}")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data_worth", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small input: does it run at all?")
    parser.add_argument("--corpus", type=Path, help="corpus.yaml of a built workspace; by default the demo is built")
    parser.add_argument("--truth", type=Path, help="its truth.parquet, where there is one")
    parser.add_argument("--rows", type=int, help="rows of the demo")
    parser.add_argument("--steps", type=int, help="optimiser steps of each training; by default the preset's")
    parser.add_argument("--seeds", type=int, help="trainings of each variant")
    parser.add_argument("--work", type=Path, help="keep everything here, and go on from what is here")
    options = parser.parse_args()
    base = QUICK if options.quick else Setting()
    asked = {name: getattr(options, name) for name in ("corpus", "truth", "rows", "steps", "seeds")}
    setting = replace(base, **{name: value for name, value in asked.items() if value is not None})
    if options.work is not None:
        measured(setting, options.work.resolve())
        return
    with tempfile.TemporaryDirectory(prefix="mmdata-worth-") as folder:
        measured(setting, Path(folder))


if __name__ == "__main__":
    main()
