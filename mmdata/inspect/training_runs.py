"""Trained models on disk: where they lie, what a stage of the training left there, and whether it is sound."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any, Literal

from mmdata.errors import DataError, UserError
from mmdata.stage import StageReport
from mmdata.storage.atomic import is_local
from mmdata.workspace.layout import Workspace

if TYPE_CHECKING:
    from mmdata.inspect.audit import Finding

ModelStage = Literal["align", "joint", "instruct"]
MODEL_STAGES: tuple[ModelStage, ...] = ("align", "joint", "instruct")

SHOWN_ANSWERS, SHOWN_CHARS = 12, 300


def model_folder(workspace: Workspace, release_id: str, preset: str | None, output: str | None = None) -> Path:
    """Where the models of a release lie: a folder a stage in it.

    Args:
        preset: names the folder; None: `run`.
        output: instead of `training` in the workspace.

    Raises:
        UserError: no output is named, and the workspace is not on a disk of this machine.
    """
    if output is None and not is_local(workspace.root):
        raise UserError(
            f"{workspace.root}: models are written to a local disk, and this workspace is on none. "
            "Remedy: set `train.output` in corpus.yaml (the graph), or give --output (`mmdata train`)."
        )
    base = Path(output) if output is not None else Path(workspace.root.path) / "training"
    return base / release_id / (preset or "run")


def read_result(folder: Path) -> dict[str, Any]:
    """What a finished stage says of itself (result.json). Raises DataError where it is missing or broken."""
    try:
        return dict(json.loads((folder / "result.json").read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise DataError(f"{folder}: no finished training stage (no result.json). Remedy: train it again.") from None
    except ValueError as error:
        raise DataError(f"{folder / 'result.json'}: not valid JSON: {error}. Remedy: delete it, train again.") from None


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The lines of a stage's log.jsonl by step; of lines written twice, before and after a resume, the later."""
    path = folder / "log.jsonl"
    lines: dict[tuple[int, str], dict[str, Any]] = {}
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            line = json.loads(text)
        except ValueError:  # a killed writer's last line
            continue
        lines[int(line["step"]), str(line["kind"])] = line
    return [lines[key] for key in sorted(lines)]


def last_step(folder: Path) -> int:
    """The step of a growing log's last whole line; 0 before the first. Reads its end alone."""
    try:
        with (folder / "log.jsonl").open("rb") as log:
            log.seek(max(0, log.seek(0, 2) - 8192))
            lines = log.read().split(b"\n")
    except FileNotFoundError:
        return 0
    return int(json.loads(lines[-2])["step"]) if len(lines) > 1 else 0


def loss_fell(folder: Path) -> Finding:
    """Whether a stage's loss is finite everywhere, and lower at its end than at its start.

    Start and end are the means of the first and last fifth of the logged steps: one batch may be an easy one.
    """
    from mmdata.inspect.audit import Finding

    steps = [(line["step"], float(line["loss"])) for line in read_log(folder) if line["kind"] == "train"]
    odd = [{"step": step, "loss": str(loss)} for step, loss in steps if not math.isfinite(loss)]
    if odd:
        return Finding(False, f"the loss is {odd[0]['loss']} at step {odd[0]['step']}", {"steps": len(steps)}, odd[:20])
    if len(steps) < 2:
        return Finding(False, f"{len(steps)} steps are logged: too few to tell")
    losses = [loss for _, loss in steps]
    width = max(1, len(losses) // 5)
    first, last = fmean(losses[:width]), fmean(losses[-width:])
    summary = f"the loss went from {first:.4g} to {last:.4g} in {steps[-1][0]:,} steps"
    return Finding(last < first, summary, {"first_loss": first, "last_loss": last})


def trained_on(folder: Path, release_id: str, digest: str) -> Finding:
    """Whether a stage's checkpoint says that it was trained on this release, byte for byte.

    Args:
        digest: the manifest's.
    """
    from mmdata.inspect.audit import Finding

    checkpoint = last_checkpoint(folder)
    try:
        meta = json.loads((checkpoint / "meta.json").read_text(encoding="utf-8"))
        named = str(meta["release_id"]), str(meta["release_digest"])
    except (OSError, ValueError, KeyError) as error:
        return Finding(False, f"{checkpoint}: names no release ({error})")
    said = f"{checkpoint.name} names release {named[0]}, digest {named[1][:12]}"
    if named == (release_id, digest):
        return Finding(True, said)
    return Finding(False, f"{said}; the graph trained on {release_id}, digest {digest[:12]}")


def last_checkpoint(folder: Path) -> Path:
    """The checkpoint of a finished stage; found by name, so that a moved folder still holds it."""
    return folder / "checkpoints" / Path(read_result(folder)["checkpoint"]).name


def step_text(stage: str, line: Mapping[str, Any], steps: int | None = None) -> str:
    """One line of a log for people."""
    where = f"{stage} step {line['step']:,}" + (f" of {steps:,}" if steps else "")
    if line["kind"] != "train":
        values = {key.removeprefix("val/"): value for key, value in line.items() if key.startswith("val/")}
        headlines = [f"{key} {value:.4g}" for key, value in values.items() if "/" not in key]
        return f"{where}: validation {', '.join(headlines)}"
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
    return f"{where}: {', '.join(parts)}"


def stage_report(folder: Path, release: str) -> StageReport:
    """What a finished stage came to: its last loss and metrics, its curve, its places.

    Args:
        release: the release's folder.

    Raises:
        DataError: the stage is not finished.
    """
    from mmdata.figures.charts import loss_curve

    result, log = read_result(folder), read_log(folder)
    stage = str(result["stage"])
    steps = [line for line in log if line["kind"] == "train"]  # the result's own first loss is that since a resume
    numbers = {
        **({"last_loss": steps[-1]["loss"], "first_loss": steps[0]["loss"]} if steps else {}),
        **({"samples_per_s": median(line["samples_per_s"] for line in steps)} if steps else {}),
        "seconds": result["seconds"],
        **result["metrics"],
    }
    finite = {name: float(value) for name, value in numbers.items() if math.isfinite(value)}
    paths = {"model": str(folder), "checkpoint": str(last_checkpoint(folder)), "release": release}
    text: dict[str, str] = {}
    if (scorer := folder / "scorer").is_dir():
        paths["scorer"] = str(scorer)
        text["use as the scorer"] = f"In corpus.yaml, for the next refresh: `score: {{model: {scorer}}}`"
    return StageReport(
        stage,
        counts={"steps": int(result["steps"]), "samples": int(result["samples"])},
        numbers=finite,
        images={"loss": loss_curve(log, f"{stage}: loss").picture()},
        text=text,
        paths=paths,
    )


def evaluation_report(output: Path, release: str) -> StageReport:
    """The measured stages of a folder side by side, a row a metric, a column a stage; then answers that they gave.

    Raises:
        DataError: a stage was trained and not measured.
    """
    measured = {stage: read_metrics(output / stage) for stage in MODEL_STAGES if (output / stage).is_dir()}
    metrics = {stage: found["metrics"] for stage, found in measured.items()}
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
            "answers": [{"stage": stage, **one} for stage in measured for one in shown_answers(measured[stage])],
        },
        paths={"models": str(output), "release": release},
    )


def read_metrics(folder: Path) -> dict[str, Any]:
    """What was measured of a stage: its metrics.json. Raises DataError where it is missing or broken."""
    try:
        return dict(json.loads((folder / "metrics.json").read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise DataError(f"{folder}: not evaluated ({error}). Remedy: mmdata evaluate {folder} RELEASE") from None


def shown_answers(measured: Mapping[str, Any]) -> list[dict[str, str]]:
    """The first answers of a measured stage beside what was right; long ones are cut."""
    columns = {"uid": "uid", "asked": "prompt", "expected": "expected", "generated": "generated"}
    return [
        {name: str(one[key])[:SHOWN_CHARS] for name, key in columns.items()}
        for one in measured["answers"][:SHOWN_ANSWERS]
    ]
