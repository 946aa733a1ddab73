"""The command `network`: train a data filtering network, and check whether it may decide."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmdata.cli.options import CONFIG, ConfigOption, ReleaseArgument, find_release, open_corpus


def network(
    release: ReleaseArgument,
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="The folder of the network.")],
    config: ConfigOption = CONFIG,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of training, such as align.steps=500; repeatable."),
    ] = None,
) -> None:
    """Train a data filtering network on a trusted release.

    Trains the align stage from the scorer of corpus.yaml, and measures on held-out pairs and wrong captions whether
    the network tells them apart better than the scorer does. Only then may a filter use it; the verdict is in
    network.json. The same command resumes a training that was stopped.
    """
    from mmdata.cli.console import console, table
    from mmdata.cli.training import StageProgress
    from training.network.train_network import network_config, train_network

    corpus, _ = open_corpus(config)
    out = console()
    steps = network_config(corpus.score, overrides or []).align.steps
    with StageProgress(out, "align", steps) as progress:
        checked = train_network(
            str(find_release(release, config)), corpus.score, output, overrides or [], progress.show
        )
    rows = [
        (kind, *(f"{of[kind].value:.3f} [{of[kind].low:.3f}, {of[kind].high:.3f}]" for of in checked.figures()))
        for kind in checked.gain
    ]
    title = f"{checked.pairs:,} held-out pairs: area under the ROC curve, with 95% intervals"
    out.print(table(title, ("wrong captions", "scorer", "network", "network - scorer"), rows))
    if checked.beats_scorer:
        name = output.name.replace("-", "_")
        out.print(f"it beats the scorer: score.networks: {{{name}: {{model: {output}}}}}", markup=False)
    else:
        out.print("it does not beat the scorer, so it may not decide", markup=False)
