"""Trained models on disk: their folders, the files that a training stage writes there, and checks of them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any, Literal

from mmdata.errors import DataError, MMDataError, UserError
from mmdata.fingerprint import file_sha256
from mmdata.observe import logs
from mmdata.releases.manifest import Release
from mmdata.report.model_captions import CAPTIONS_PAGE
from mmdata.stage import StageReport
from mmdata.storage.atomic import is_local
from mmdata.workspace.layout import Workspace

if TYPE_CHECKING:
    from upath import UPath

    from mmdata.inspect.audit import Finding

_log = logs.logger(__name__)

ModelStage = Literal["align", "joint", "instruct"]
LEFT_OUT = "left_out"
"""The kind of the log line that counts the samples of the release which a stage does not read, by what they hold."""
MODEL_STAGES: tuple[ModelStage, ...] = ("align", "joint", "instruct")

SHOWN_ANSWERS, MAX_ANSWER_CHARS = 12, 300
CLASS_COLUMNS = ("class", "precision", "recall", "f1", "support")  # of the classification report


def model_folder(workspace: Workspace, release_id: str, preset: str | None, output: str | None = None) -> Path:
    """The folder of the models of a release, which has one subfolder for each stage.

    Args:
        preset: name of the folder; None: `run`.
        output: parent folder to use instead of `training` in the workspace.

    Raises:
        UserError: there is no output, and the workspace is not on a disk of this machine.
    """
    if output is None and not is_local(workspace.root):
        raise UserError(
            f"{workspace.root}: models are written to a local disk, and this workspace is not on one. "
            "Remedy: set `train.output` in corpus.yaml (the graph), or give --output (`mmdata train`)."
        )
    base = Path(output) if output is not None else Path(workspace.root.path) / "training"
    return base / release_id / (preset or "run")


def model_folders(workspace: Workspace, release_id: str, output: str | None = None) -> list[Path]:
    """The folders of all models of a release that are on this machine: in the workspace, and in `output`.

    Args:
        output: `train.output` of corpus.yaml.
    """
    bases = [Path(workspace.root.path) / "training"] if is_local(workspace.root) else []
    bases += [Path(output)] if output is not None else []
    return sorted(folder for base in bases for folder in (base / release_id).glob("*") if folder.is_dir())


def show_captions(release: Release, output: str | None, *evaluated: Path) -> UPath | None:
    """Write the report of a release again after an evaluation, so that it shows the captions of the models.

    Args:
        output: `train.output` of corpus.yaml.
        evaluated: folders of models elsewhere.

    Returns: the report; None if the release has none, or if it cannot be written again: the log tells why.
    """
    from mmdata.report.stage import report_release

    path = release.folder / "report.html"
    if not path.exists():
        return None
    try:
        report_release(release.folder, [*model_folders(release.workspace, release.id, output), *evaluated])
    except (MMDataError, OSError) as error:  # such as a release that only others may write
        _log.warning("the report does not show the new captions", report=str(path), why=str(error))
        return None
    return path


def read_result(folder: Path) -> dict[str, Any]:
    """The result.json of a finished stage. Raises DataError if it is missing or broken."""
    try:
        return dict(json.loads((folder / "result.json").read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise DataError(f"{folder}: no finished training stage (no result.json). Remedy: train it again.") from None
    except ValueError as error:
        raise DataError(f"{folder / 'result.json'}: not valid JSON: {error}. Remedy: delete it, train again.") from None


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The lines of a stage's log.jsonl by step; the later one if a resumed run wrote a line again."""
    path = folder / "log.jsonl"
    lines: dict[tuple[int, str], dict[str, Any]] = {}
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            line = json.loads(text)
        except ValueError:  # the last line of a killed writer
            continue
        lines[int(line["step"]), str(line["kind"])] = line
    return [lines[key] for key in sorted(lines)]


def last_step(folder: Path) -> int:
    """The step in the last whole line of a growing log; 0 before the first. Reads only the end of the file."""
    try:
        with (folder / "log.jsonl").open("rb") as log:
            log.seek(max(0, log.seek(0, 2) - 8192))
            lines = log.read().split(b"\n")
    except FileNotFoundError:
        return 0
    return int(json.loads(lines[-2])["step"]) if len(lines) > 1 else 0


def loss_fell(folder: Path) -> Finding:
    """Check that a stage's loss is finite everywhere, and lower at the end than at the start.

    Start and end are the means of the first and last fifth of the logged steps, because single batches vary.
    """
    from mmdata.inspect.audit import MAX_EXAMPLES, Finding

    steps = [(line["step"], float(line["loss"])) for line in read_log(folder) if line["kind"] == "train"]
    infinite = [{"step": step, "loss": str(loss)} for step, loss in steps if not math.isfinite(loss)]
    if infinite:
        return Finding(
            False,
            f"the loss is {infinite[0]['loss']} at step {infinite[0]['step']}",
            {"steps": len(steps)},
            infinite[:MAX_EXAMPLES],
        )
    if len(steps) < 2:
        return Finding(False, f"{len(steps)} steps are logged, which is too few for a trend")
    losses = [loss for _, loss in steps]
    width = max(1, len(losses) // 5)
    first, last = fmean(losses[:width]), fmean(losses[-width:])
    summary = f"the loss went from {first:.4g} to {last:.4g} in {steps[-1][0]:,} steps"
    return Finding(last < first, summary, {"first_loss": first, "last_loss": last})


def trained_on(folder: Path, release_id: str, digest: str) -> Finding:
    """Check that a stage's checkpoint names this release, and the digest of its manifest, alone or among others."""
    from mmdata.inspect.audit import Finding

    checkpoint = _last_checkpoint(folder)
    try:
        meta = json.loads((checkpoint / "meta.json").read_text(encoding="utf-8"))
        trained_id, trained_digest = str(meta["release_id"]), str(meta["release_digest"])
        sources = [(source["id"], source["digest"]) for source in meta.get("sources", [])]
    except (OSError, ValueError, KeyError) as error:
        return Finding(False, f"{checkpoint}: names no release ({error})")
    summary = f"{checkpoint.name} names release {trained_id}, digest {trained_digest[:12]}"
    if (release_id, digest) in [(trained_id, trained_digest), *sources]:
        return Finding(True, summary)
    return Finding(False, f"{summary}; the graph trained on {release_id}, digest {digest[:12]}")


def _last_checkpoint(folder: Path) -> Path:
    """The checkpoint of a finished stage; looked up by its name, because the folder may have been moved."""
    return folder / "checkpoints" / Path(read_result(folder)["checkpoint"]).name


def step_text(stage: str, line: Mapping[str, Any], steps: int | None = None) -> str:
    """A line of a log as text for people."""
    if line["kind"] == "features_planned":
        media, mb, free = f"{line['media']:,.0f}", f"{line['bytes'] / 1e6:,.1f}", f"{line['free_bytes'] / 1e6:,.1f}"
        return f"{stage}: about {media} features of frozen towers are missing; they take {mb} MB of {free} MB free"
    if line["kind"] == "features":
        media, mb = f"{line['media']:,.0f}", f"{line['bytes'] / 1e6:,.1f}"
        return f"{stage}: {media} features of frozen towers computed in {line['seconds']:,.0f} s; {mb} MB are cached"
    if line["kind"] == LEFT_OUT:
        counts = ", ".join(f"{count:,} of {kind}" for kind, count in line.items() if kind not in ("kind", "step"))
        return f"{stage}: samples that this stage does not read: {counts}"
    if line["kind"] == "records":
        named = f": {', '.join(line['lists'])}" if line["bad"] or line["left_out"] else ""
        counts = f"{line['records']:,} own records, {line['bad']:,} bad, {line['left_out']:,} left out"
        return f"{stage}: {counts}{named}"
    step = f"{stage} step {line['step']:,}" + (f" of {steps:,}" if steps else "")
    if line["kind"] != "train":
        values = {key.removeprefix("val/"): value for key, value in line.items() if key.startswith("val/")}
        headlines = [f"{key} {value:.4g}" for key, value in values.items() if "/" not in key]
        return f"{step}: validation {', '.join(headlines)}"
    parts = [f"loss {line['loss']:.4g}"]
    for key, form in (
        ("samples_per_s", "{:,.0f} samples/s"),
        ("tokens_per_s", "{:,.0f} tokens/s"),
        ("mfu", "MFU {:.1%}"),
        ("data_wait", "data wait {:.1%}"),
        ("peak_gib", "peak {:.1f} GiB"),
        ("eta_s", "{:,.0f} s to go"),
    ):
        if line.get(key):
            parts.append(form.format(line[key]))
    return f"{step}: {', '.join(parts)}"


def stage_report(folder: Path, release: str) -> StageReport:
    """The report of a finished stage: losses, metrics, the loss curve and paths.

    Args:
        release: the release's folder.

    Raises:
        DataError: the stage is not finished.
    """
    from mmdata.figures.charts import loss_curve

    result, log = read_result(folder), read_log(folder)
    checkpoint = _last_checkpoint(folder)
    stage = str(result["stage"])
    steps = [line for line in log if line["kind"] == "train"]  # result.json begins at the last resume
    numbers = {
        **({"last_loss": steps[-1]["loss"], "first_loss": steps[0]["loss"]} if steps else {}),
        **({"samples_per_s": median(line["samples_per_s"] for line in steps)} if steps else {}),
        "seconds": result["seconds"],
        **result["metrics"],
    }
    left_out: dict[str, Any] = next((line for line in reversed(log) if line["kind"] == LEFT_OUT), {})
    finite = {name: float(value) for name, value in numbers.items() if math.isfinite(value)}
    paths = {"model": str(folder), "checkpoint": str(checkpoint), "release": release}
    text: dict[str, str] = {}
    if (scorer := folder / "scorer").is_dir():
        paths["scorer"] = str(scorer)
        text["use as the scorer"] = f"In corpus.yaml, for the next refresh: `score: {{model: {scorer}}}`"
    return StageReport(
        stage,
        counts={
            "steps": int(result["steps"]),
            "samples": int(result["samples"]),
            **{f"{kind}_not_read": int(count) for kind, count in left_out.items() if kind not in ("kind", "step")},
        },
        numbers=finite,
        images={"loss": loss_curve(log, f"{stage}: loss").picture()},
        text=text,
        paths=paths,
        version=file_sha256(checkpoint / "meta.json"),  # it names the release, the settings and the step
    )


def evaluation_report(output: Path, release: str) -> StageReport:
    """The report that compares the stages of a folder: a row for each metric, a column for each stage, and answers.

    Raises:
        DataError: a stage was trained and not evaluated.
    """
    measured = {stage: _read_metrics(output / stage) for stage in MODEL_STAGES if (output / stage).is_dir()}
    metrics = {stage: values["metrics"] for stage, values in measured.items()}
    captions = output / "joint" / CAPTIONS_PAGE
    names = dict.fromkeys(name for values in metrics.values() for name in values)
    return StageReport(
        "evaluation",
        numbers={
            f"{stage}/{name}": value
            for stage, values in metrics.items()
            for name, value in values.items()
            if math.isfinite(value)
        },
        tables={
            "metrics": [{"metric": name, **{stage: metrics[stage].get(name) for stage in metrics}} for name in names],
            "answers": [{"stage": stage, **row} for stage in measured for row in shown_answers(measured[stage])],
        },
        paths={
            "models": str(output),
            "release": release,
            **({"captions": str(captions)} if captions.exists() else {}),
        },
    )


def _read_metrics(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / "metrics.json").read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise DataError(f"{folder}: not evaluated ({error}). Remedy: mmdata evaluate {folder} RELEASE") from None


def shown_answers(measured: Mapping[str, Any]) -> list[dict[str, str]]:
    """The first answers of an evaluated stage beside the expected ones, shortened; `measured` is its metrics.json."""
    columns = {"uid": "uid", "asked": "prompt", "expected": "expected", "generated": "generated"}
    return [
        {name: str(answer[key])[:MAX_ANSWER_CHARS] for name, key in columns.items()}
        for answer in measured["answers"][:SHOWN_ANSWERS]
    ]


def class_rows(report: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The classification report as a table of CLASS_COLUMNS: the classes, then the averages.

    Args: report: `classification` of metrics.json.
    """
    averages = [
        {"class": f"{kind} average", **report[kind], "support": report["samples"]} for kind in ("macro", "weighted")
    ]
    _, *scores, _ = CLASS_COLUMNS
    return [
        (row["class"], *(f"{row[name]:.3f}" for name in scores), f"{row['support']:,}")
        for row in (*report["classes"], *averages)
    ]
