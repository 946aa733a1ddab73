"""Commands about models: `train`, `evaluate`, `export`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmdata.cli.options import CONFIG, ReleaseArgument, find_release, is_path, open_corpus, train_output
from mmdata.errors import UserError
from mmdata.instruct.forms import is_record_file

if TYPE_CHECKING:
    from rich.console import Console

    from mmdata.config import Train

PLAIN_LINE_EVERY_S = 5.0  # where the output is no terminal


class StageOption(StrEnum):
    """The values of --stage."""

    align = "align"
    joint = "joint"
    instruct = "instruct"
    all = "all"


CorpusOption = Annotated[
    Path,
    typer.Option(
        *("--config", "--corpus", "-c"),
        help="The corpus.yaml of the corpus, if RELEASE is an id.",
        envvar="MMDATA_CONFIG",
    ),
]
CheckpointArgument = Annotated[
    Path, typer.Argument(metavar="CHECKPOINT", help="A checkpoint, or the folder of a stage, such as DIR/align.")
]


SourcesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="RELEASE",
        help="Releases: folders, `releases/latest`, workspaces, ids (or their first digits), or `latest`; and .json or "
        ".jsonl files of own instructions. `data.sources` of the settings are read beside them.",
        show_default=False,
    ),
]


def train(
    sources: SourcesArgument = None,
    stage: Annotated[StageOption, typer.Option(help="One stage, or all three in order.")] = StageOption.all,
    preset: Annotated[
        str | None,
        typer.Option(help="tiny, demo, smollm2, b16-360m, b16-0.5b, b32-0.5b, l14-1b, l14-7b; default: train.preset."),
    ] = None,
    settings: Annotated[
        Path | None, typer.Option(metavar="TOML", help="A train.toml; it overrides the preset.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting that replaces both; can be repeated."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the models; default: the workspace.")
    ] = None,
    corpus: CorpusOption = CONFIG,
) -> None:
    """Train models on releases, and on your own instructions.

    Trains in three stages: align the encoders, join them to a language model, teach it to answer. Several sources are
    mixed, each sample once an epoch; data.sources gives them weights. Your own instructions (docs/own-data.md) are read
    by the last stage. The same command resumes a training that was stopped, and skips finished stages. Ctrl-C writes a
    checkpoint first. For several GPUs: torchrun --nproc-per-node N -m training RELEASE …
    """
    from mmdata.cli.console import console, summary_line
    from mmdata.inspect.training_runs import MODEL_STAGES, stage_report
    from training.config_file import load_train_config

    if corpus.suffix == ".toml":
        raise UserError(f"--config names corpus.yaml, and {corpus} is training settings. Remedy: --settings {corpus}")
    named = sources or []
    paths = [_source_path(source, corpus) for source in named]
    corpus_settings = _settings(named, corpus, preset, settings)
    every_override = [*corpus_settings.set, *(overrides or [])]
    chosen = load_train_config(corpus_settings.preset, corpus_settings.config, every_override)
    folder = output or _folder(paths, corpus_settings)
    read = [*paths, *(source.path for source in chosen.data.sources)]
    out = console()
    out.print(f"data {', '.join(read)}; models in {folder}", markup=False)
    from training.run import train as run

    stages = MODEL_STAGES if stage is StageOption.all else tuple(name for name in MODEL_STAGES if name == stage)
    for name in stages:
        with StageProgress(out, name, getattr(chosen, name).steps) as progress:
            for result in run(paths, [name], chosen, folder, on_line=progress.show):
                if result.stopped == "signal":
                    out.print(
                        f"stopped at step {result.steps:,}: {result.checkpoint}; the same command resumes from it"
                    )
                    raise typer.Exit(130)
        report = stage_report(folder / name, ", ".join(read))
        out.print(f"done    {name:<9} {summary_line(report)}", markup=False)
    out.print(f"\nmeasure it:  mmdata evaluate {folder / stages[-1]} {[*named, *read][0]}", markup=False)


def evaluate(
    checkpoint: CheckpointArgument,
    release: ReleaseArgument,
    samples: Annotated[
        int | None, typer.Option(min=1, help="At most this many held-out samples; default: all.")
    ] = None,
    answers: Annotated[int, typer.Option(min=0, help="Generate an answer for this many samples.")] = 64,
    pictures: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Pictures that a model generated for the captions; measures their FID."),
    ] = None,
    inception: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="With --pictures: weights of InceptionV3 (.pth), for the published FID and the Inception score; "
            "default: the FID of the model's own image tower.",
        ),
    ] = None,
    classify: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Stage align: classify the pictures by the names of their classes. COLUMN holds the true classes: "
            "`concept` of the release, or a column of the source.",
        ),
    ] = None,
    classes: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="With --classify: the class names, one a line; default: all in the column."),
    ] = None,
    class_prompt: Annotated[
        str, typer.Option(metavar="TEXT", help="With --classify: the text of a class; {} stands for its name.")
    ] = "a photo of {}",
    corpus: CorpusOption = CONFIG,
) -> None:
    """Measure a model on the held-out split of a release, or of a file of own instructions.

    Measures retrieval, or perplexity and generated answers, depending on the stage; with --classify precision, recall
    and F1 of each class; with --pictures FID and Inception score. Writes metrics.json and metrics.md
    next to the checkpoint. The captions of stage joint are shown beside their pictures in the report of the release.
    """
    from mmdata.cli.console import console, facts, table
    from mmdata.inspect.training_runs import CLASS_COLUMNS, class_rows, show_captions, shown_answers
    from mmdata.releases.manifest import open_release

    _must_exist(checkpoint)
    if classes is not None and classify is None:
        raise UserError("--classes names classes for --classify. Remedy: add `--classify concept`.")
    source = _source_path(release, corpus)
    out = console()
    with out.status("measuring"):
        from training.evaluate.evaluation import evaluate as measure

        measured = measure(
            checkpoint,
            source,
            samples=samples,
            generate=answers,
            generated=pictures,
            inception=inception,
            classify=classify,
            classes=classes,
            class_prompt=class_prompt,
        )
    out.print(facts(f"{measured['stage']}, {measured['samples']:,} held-out samples", measured["metrics"]))
    if "classification" in measured:
        out.print(table("\nclasses", CLASS_COLUMNS, class_rows(measured["classification"])))
    if rows := shown_answers(measured):
        columns = ("asked", "expected", "generated")
        out.print(table("\nanswers", columns, [[row[name] for name in columns] for row in rows]))
    if measured["stage"] == "joint":
        place = checkpoint.resolve()
        models = [folder.parent for folder in (place, *place.parents) if folder.name == "joint"]
        page = show_captions(open_release(source), train_output(release, corpus), *models[:1])
        if page is not None:
            out.print(f"\ncaptions beside their pictures: {page}#captions", markup=False)


def export(
    checkpoint: CheckpointArgument,
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="The folder to write to.")],
    int8: Annotated[bool, typer.Option("--int8", help="Also write a variant with 8-bit weights.")] = False,
    prune: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Also write it without this share of neurons.")
    ] = None,
    distill: Annotated[
        int | None,
        typer.Option(min=1, metavar="STEPS", help="Also write a student with half the layers, trained on --release."),
    ] = None,
    llava: Annotated[
        bool,
        typer.Option("--llava", help="Also write it as a LLaVA model and processor, for image-text-to-text servers."),
    ] = False,
    release: Annotated[
        str | None,
        typer.Option(metavar="RELEASE", help="The release that it was trained on; then quality is measured too."),
    ] = None,
    corpus: CorpusOption = CONFIG,
) -> None:
    """Write a model as a folder that other libraries load.

    Writes the language model for Hugging Face with its adapters merged, and the other parts next to it; for stage
    align, both towers for open_clip or transformers. Variants are in folders inside it. A table compares size, speed
    and quality.
    """
    from mmdata.cli.console import console

    _must_exist(checkpoint)
    folder = None if release is None else str(find_release(release, corpus))
    out = console()
    with out.status("exporting"):
        from training.export.export import export as write

        write(checkpoint, output, int8=int8, prune=prune, distill_steps=distill, llava=llava, release=folder)
    out.print((output / "table.md").read_text(encoding="utf-8"), markup=False)
    out.print(str(output), markup=False)


class StageProgress:
    """Shows the progress of a stage: a bar with the loss, or plain lines where the output is no terminal."""

    def __init__(self, out: Console, stage: str, steps: int) -> None:
        from rich.progress import TextColumn

        from mmdata.cli.console import progress_bars

        self.out, self.stage, self.steps = out, stage, steps
        self.printed_at = -PLAIN_LINE_EVERY_S
        self.bar = progress_bars(out, TextColumn("{task.fields[status]}", markup=False))
        self.task = self.bar.add_task(stage, total=steps, status="loading")

    def __enter__(self) -> StageProgress:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def show(self, line: Mapping[str, Any]) -> None:
        """Show a line of the training log."""
        from mmdata.inspect.training_runs import step_text

        if line["kind"] == "train":
            status = step_text(self.stage, line).partition(": ")[2]
            self.bar.update(self.task, completed=line["step"], status=status)
            is_due = time.monotonic() - self.printed_at > PLAIN_LINE_EVERY_S
            if self.out.is_terminal or not is_due:
                return
            self.printed_at = time.monotonic()
        self.out.print(f"        {step_text(self.stage, line, self.steps)}", markup=False)


def _source_path(source: str, corpus: Path) -> str:
    """The path of a file of own instructions, or of a release by its path or id."""
    return source if is_record_file(source) else str(find_release(source, corpus))


def _settings(sources: Sequence[str], corpus: Path, preset: str | None, toml: Path | None) -> Train:
    """The training settings: of the options, or of corpus.yaml where no option is given and a RELEASE is an id."""
    from mmdata.config import Train

    names_id = any(not is_path(source) and not is_record_file(source) for source in sources)
    if preset is None and toml is None and names_id:
        return open_corpus(corpus)[0].train
    return Train(preset=preset, config=None if toml is None else str(toml))


def _folder(paths: Sequence[str], settings: Train) -> Path:
    """The folder of the models of one release. Raises UserError: there are other data than that."""
    from mmdata.inspect.training_runs import model_folder
    from mmdata.releases.manifest import open_release
    from mmdata.storage.atomic import is_local

    if len(paths) != 1 or is_record_file(paths[0]):
        raise UserError("only the models of one release have a folder of their own. Remedy: --output DIR.")
    release = open_release(paths[0])
    if settings.output is None and not is_local(release.folder):
        return Path(f"training-{release.id}")
    return model_folder(release.workspace, release.id, settings.preset, settings.output)


def _must_exist(checkpoint: Path) -> None:
    if not checkpoint.exists():
        raise UserError(f"{checkpoint}: no such folder. Remedy: give the folder of a trained stage, such as DIR/align.")
