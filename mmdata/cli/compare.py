"""The command `compare`: which training set makes the better model, by an experiment with intervals."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmdata.cli.options import CONFIG, ConfigOption, open_corpus

if TYPE_CHECKING:
    from rich.console import Console

    from mmdata.config import Corpus
    from training.compare.outcome import Outcome
    from training.compare.verdict import Difference

ArmsArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="A B [C...]",
        help="`raw` (every fetched pair once), `draft`, `latest`, the id or folder of a release, another corpus.yaml "
        "of the same workspace, a table of uids, or settings such as `select.filter.top_fraction=0.5` (several: `;`). "
        "`NAME:ARM` names it.",
    ),
]


def compare(
    arms: ArmsArgument,
    config: ConfigOption = CONFIG,
    budget: Annotated[
        int | None, typer.Option("--budget", "--steps", min=1, help="Optimiser steps of each training.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Trainings of each arm.")] = None,
    held_out_share: Annotated[
        float | None, typer.Option(help="Share of the corpus that is held out, drawn by hash.")
    ] = None,
    held_out: Annotated[
        str | None,
        typer.Option(metavar="RELEASE|TABLE", help="Measure on these pairs instead, such as a clean validation set."),
    ] = None,
    group_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="A column of the source that marks pairs that belong together.")
    ] = None,
    truth: Annotated[
        Path | None,
        typer.Option(metavar="TABLE", help="Which captions are true: `uid`, `true_pair`, perhaps `concept`."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    html: Annotated[Path | None, typer.Option(help="Also write an HTML page with plots to this file.")] = None,
    cache: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where vectors and ranks are kept; default: the workspace.")
    ] = None,
) -> None:
    """Compare training sets by the models that they make.

    Trains the same small model (heads on the frozen towers of the scorer) for the same steps on each arm, several
    seeds each, and measures all on pairs that none was trained on. Differences come with intervals. Nothing in the
    workspace is changed but its cache.
    """
    import json

    from upath import UPath

    from mmdata.cli.console import console
    from training.compare.experiment import compare as run
    from training.compare.settings import cache_folder, experiment_of

    corpus = _corpus(config)
    given = {"steps": budget, "seeds": seeds, "held_out_share": held_out_share, "group_column": group_column}
    experiment = experiment_of(corpus, arms, {**given, "held_out": held_out, "truth": truth})
    out = console()
    if as_json:
        outcome = run(corpus, experiment, cache_folder(corpus, cache))
        typer.echo(json.dumps(outcome.to_json(), indent=1, ensure_ascii=False, allow_nan=False))
    else:
        with out.status("reading") as status:

            def show(what: str, done: int, total: int) -> None:
                status.update(f"{what}: {done:,}" + (f" of {total:,}" if total else ""))

            outcome = run(corpus, experiment, cache_folder(corpus, cache), show)
        print_outcome(out, outcome)
    if html is not None:
        from mmdata.storage.atomic import publish_bytes
        from training.compare.compare_page import compare_page

        publish_bytes(UPath(html), compare_page(outcome).encode("utf-8", "xmlcharrefreplace"))
        typer.echo(f"wrote {html}", err=as_json)


def print_outcome(out: Console, outcome: Outcome) -> None:
    """Print an outcome as tables, and the verdicts under them."""
    from mmdata.cli.console import table

    shares = ["not known" if arm.true_share is None else f"{arm.true_share:.1%}" for arm in outcome.arms]
    rows = [
        (arm.name, arm.distinct, arm.trained_on, arm.trained_on_distinct, share)
        for arm, share in zip(outcome.arms, shares, strict=True)
    ]
    out.print(table("arms", ("", "pairs", "trained on", "distinct", "true captions"), rows))
    held_out = f"{outcome.held_out:,} pairs held out, {outcome.left_out:,} more left out as too like them"
    budget = f"{outcome.seeds} seeds of {outcome.steps:,} steps of {outcome.batch:,} pairs"
    out.print(f"\n{held_out}; {budget}; towers of {outcome.scorer}", markup=False)
    names = [arm.name for arm in outcome.arms]
    against = [(names[0], name) for name in names[1:]]
    lines = []
    for metric in outcome.measured:
        means = [_mean(metric.seeds[name]) for name in names]
        gains = [metric.differences[pair] for pair in against]
        cells = [_gain(gain) for gain in gains]
        lines.append((metric.name, *means, *cells))
    columns = ("metric", *names, *(f"{second} - {first}" for first, second in against))
    out.print(table("\nmean ± standard deviation over seeds; difference with its interval", columns, lines))
    out.print("")
    for pair in outcome.pairs():
        out.print(outcome.verdict(pair), markup=False)
    for note in outcome.notes():
        out.print(note, markup=False)
    out.print(f"{outcome.seconds:.0f} s", markup=False)


def _gain(gain: Difference) -> str:
    """The difference with its interval, and a word where it leaves zero out."""
    text = f"{gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]"
    return f"{text} {gain.word}" if gain.word != "no difference seen" else text


def _mean(values: object) -> str:
    import numpy as np

    seeds = np.asarray(values, np.float64)
    return f"{seeds.mean():.3f}" + (f" ± {seeds.std(ddof=1):.3f}" if len(seeds) > 1 else "")


def _corpus(config: Path) -> Corpus | None:
    """The corpus; None where there is no corpus.yaml and none was asked for: releases are then given by folder."""
    if config == CONFIG and "MMDATA_CONFIG" not in os.environ and not config.exists():
        return None
    return open_corpus(config)[0]
