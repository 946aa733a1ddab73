"""Commands about models: `train`, `evaluate`, `export`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmdata.cli.options import CONFIG, open_corpus
from mmdata.cli.release import ReleaseArgument, find_release, is_path

if TYPE_CHECKING:
    from rich.console import Console

    from mmdata.config import Train
    from mmdata.releases.manifest import Release

PLAIN_EVERY_S = 5.0  # between lines where there is no terminal


class StageOption(StrEnum):
    align = "align"
    joint = "joint"
    instruct = "instruct"
    all = "all"


CorpusOption = Annotated[
    Path, typer.Option("--corpus", "-c", help="The corpus, where RELEASE is an id.", envvar="MMDATA_CONFIG")
]
CheckpointArgument = Annotated[
    Path, typer.Argument(metavar="CHECKPOINT", help="A trained stage's folder, such as DIR/align, or a checkpoint.")
]


def train(
    release: ReleaseArgument,
    stage: Annotated[StageOption, typer.Option(help="One stage, or all three in order.")] = StageOption.all,
    preset: Annotated[
        str | None, typer.Option(help="tiny, smollm2, b32-0.5b, l14-1b or l14-7b; by default as corpus.yaml says.")
    ] = None,
    config: Annotated[Path | None, typer.Option(metavar="TOML", help="A train.toml, over the preset.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Over both; may stand more than once.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the models lie; by default in the release's workspace.")
    ] = None,
    corpus: CorpusOption = CONFIG,
) -> None:
    """Train models on a release.

    In three stages: align encoders, join them to a language model, teach it to answer. The same command again goes
    on where it stopped; a finished stage is left alone. Ctrl-C writes a checkpoint first. For several GPUs:
    torchrun --nproc-per-node N -m training RELEASE …
    """
    from mmdata.cli.console import console, summary_line
    from mmdata.inspect.training_runs import MODEL_STAGES, stage_report
    from mmdata.releases.manifest import open_release
    from training.config import load_train_config

    found = open_release(find_release(release, corpus))
    settings = _settings(release, corpus, preset, config)
    chosen = load_train_config(settings.preset, settings.config, [*settings.set, *(overrides or [])])
    folder = output or _folder(found, settings)
    out = console()
    out.print(f"release {found.id}, models in {folder}", markup=False)
    from training.run import train as run

    stages = MODEL_STAGES if stage is StageOption.all else tuple(name for name in MODEL_STAGES if name == stage)
    for name in stages:
        with StageProgress(out, name, getattr(chosen, name).steps) as progress:
            for result in run(str(found.folder), [name], chosen, folder, on_line=progress.show):
                if result.stopped == "signal":
                    out.print(
                        f"stopped at step {result.steps:,}: {result.checkpoint}; the same command goes on from it"
                    )
                    raise typer.Exit(130)
        report = stage_report(folder / name, str(found.folder))
        out.print(f"done    {name:<9} {summary_line(report)}", markup=False)
    out.print(f"\nmeasure it:  mmdata evaluate {folder / stages[-1]} {release}", markup=False)


def evaluate(
    checkpoint: CheckpointArgument,
    release: ReleaseArgument,
    samples: Annotated[int | None, typer.Option(min=1, help="Held-out samples at most; by default all.")] = None,
    answers: Annotated[int, typer.Option(min=0, help="Samples that an answer is generated for.")] = 64,
    pictures: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Pictures that a model made for the captions: FID against the held-out ones."),
    ] = None,
    corpus: CorpusOption = CONFIG,
) -> None:
    """Measure a model on a release's held-out split.

    Retrieval, or perplexity and generated answers, as far as the stage has learned them; written beside the
    checkpoint as metrics.json and metrics.md.
    """
    from mmdata.cli.console import console, facts, table
    from mmdata.inspect.training_runs import shown_answers

    _must_exist(checkpoint)
    folder = find_release(release, corpus)
    out = console()
    with out.status("measuring"):
        from training.evaluate.evaluation import evaluate as measure

        found = measure(checkpoint, str(folder), samples=samples, generate=answers, generated=pictures)
    out.print(facts(f"{found['stage']}, {found['samples']:,} held-out samples", found["metrics"]))
    if rows := shown_answers(found):
        columns = ("asked", "expected", "generated")
        out.print(table("\nanswers", columns, [[row[name] for name in columns] for row in rows]))


def export(
    checkpoint: CheckpointArgument,
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="The folder to write.")],
    int8: Annotated[bool, typer.Option("--int8", help="Also with the language model's weights in 8 bits.")] = False,
    prune: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Also without this share of its MLPs' neurons, such as 0.5.")
    ] = None,
    distill: Annotated[
        int | None, typer.Option(min=1, metavar="STEPS", help="Also a student of half the layers, taught on --release.")
    ] = None,
    release: Annotated[
        str | None, typer.Option(metavar="RELEASE", help="The one it was trained on: quality is measured, too.")
    ] = None,
    corpus: CorpusOption = CONFIG,
) -> None:
    """Write a model as a folder that others load.

    The language model for Hugging Face, adapters merged, the rest beside it; of stage align both towers for
    open_clip. Smaller variants lie in folders within, and a table says size, speed and quality before and after.
    """
    from mmdata.cli.console import console

    _must_exist(checkpoint)
    folder = None if release is None else str(find_release(release, corpus))
    out = console()
    with out.status("exporting"):
        from training.export.export import export as write

        write(checkpoint, output, int8=int8, prune=prune, distill_steps=distill, release=folder)
    out.print((output / "table.md").read_text(encoding="utf-8"), markup=False)
    out.print(str(output), markup=False)


class StageProgress:
    """Draws a stage: a bar with the loss; plain lines where there is no terminal."""

    def __init__(self, out: Console, stage: str, steps: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self.out, self.stage, self.steps = out, stage, steps
        self.spoke_at = -PLAIN_EVERY_S
        self.bar = Progress(
            TextColumn("{task.description:<9}"),
            BarColumn(bar_width=32),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[says]}", markup=False),
            console=out,
            transient=True,
            disable=not out.is_terminal,
        )
        self.task = self.bar.add_task(stage, total=steps, says="loading")

    def __enter__(self) -> StageProgress:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def show(self, line: Mapping[str, Any]) -> None:
        """Take a line of the log."""
        from mmdata.inspect.training_runs import step_text

        if line["kind"] == "train":
            says = step_text(self.stage, line).partition(": ")[2]
            self.bar.update(self.task, completed=line["step"], says=says)
            due = time.monotonic() - self.spoke_at > PLAIN_EVERY_S
            if self.out.is_terminal or not due:
                return
            self.spoke_at = time.monotonic()
        self.out.print(f"        {step_text(self.stage, line, self.steps)}", markup=False)


def _settings(release: str, corpus: Path, preset: str | None, config: Path | None) -> Train:
    """What to train: as the options say; where they say nothing and RELEASE is an id, as corpus.yaml does."""
    from mmdata.config import Train

    if preset is None and config is None and not is_path(release):
        return open_corpus(corpus)[0].train
    return Train(preset=preset, config=None if config is None else str(config))


def _folder(release: Release, settings: Train) -> Path:
    from mmdata.inspect.training_runs import model_folder
    from mmdata.storage.atomic import is_local

    if settings.output is None and not is_local(release.folder):
        return Path(f"training-{release.id}")
    return model_folder(release.workspace, release.id, settings.preset, settings.output)


def _must_exist(checkpoint: Path) -> None:
    from mmdata.errors import UserError

    if not checkpoint.exists():
        raise UserError(f"{checkpoint}: no such folder. Give a trained stage's folder, such as DIR/align.")
