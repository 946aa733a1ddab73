"""`mmdata export CHECKPOINT OUTPUT`: a trained model as a folder that others load, smaller variants, and a table."""

from __future__ import annotations

import copy
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from upath import UPath

from mmdata.errors import UserError
from mmdata.storage.atomic import TEMPORARY, publish_json, sync
from training.checkpoint.checkpoints import Progress, find_checkpoint, read_progress
from training.config import TrainConfig
from training.data.sample_index import TrainingRelease, open_training_release
from training.distributed.process_mesh import Mesh, join_processes
from training.export import shrink
from training.export.comparison import (
    TEXTS,
    Comparison,
    alternating_s,
    folder_bytes,
    held_out_batches,
    markdown,
    tensor_bytes,
)
from training.export.exported import BESIDE, is_known_tokenizer, load_exported, quiet, write_model
from training.model.encoders import DualEncoder
from training.model.llm import merge_lora
from training.model.scorer_folder import save_scorer
from training.model.towers import OpenClipText, OpenClipVision
from training.stages.saved_model import load_model
from training.stages.stage_model import StageModel
from training.stages.stage_step import validate

PICTURES = 16  # that are timed at once


def export(
    checkpoint: Path,
    output: Path,
    *,
    int8: bool = False,
    prune: float | None = None,
    distill_steps: int | None = None,
    release: str | None = None,
) -> dict[str, Any]:
    """Write a checkpoint as a folder of safetensors and JSON, whole or not at all.

    Stages `joint` and `instruct`: the plain language model for `AutoModelForCausalLM` and `AutoTokenizer`, adapters
    merged, and `multimodal/` with the rest, for `load_exported`; variants of the same kind in `int8/`, `pruned/` and
    `distilled/`. Stage `align`: both towers for `open_clip.create_model("local-dir:OUTPUT")`; a sound tower has no
    place there. `table.md` and `table.json` say size, speed and quality before and after.

    Args:
        checkpoint: a checkpoint, or a stage's folder.
        output: a folder that is not there yet, or empty.
        int8: also with int8 weights.
        prune: also without this share of its MLPs' neurons, 0 to 1.
        distill_steps: also a student of half the layers, taught on the release for so many steps.
        release: what the checkpoint was trained on: quality is measured on its held-out split.

    Returns:
        What table.json holds: stage, step, release, device, a row for the checkpoint and each folder, and notes.

    Raises:
        UserError: an impossible request, an output that is not empty, a checkpoint of another release.
        DataError: the checkpoint or the release is broken.
    """
    place = find_checkpoint(checkpoint)
    progress = read_progress(place)
    _check_request(progress, output, int8, prune, distill_steps, release)
    with quiet():
        built, config = load_model(place)
    mesh = join_processes(config.parallel.model_copy(update={"tp": 1, "pp": 1}), config.device)
    opened = None if release is None else _open(release, place, progress, config)
    draft = output.parent / f"{TEMPORARY}{output.name}"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        notes: list[str] = []
        if isinstance(built.model, DualEncoder):
            rows = _towers(built, config, draft, mesh, opened)
        else:
            about = {"step": progress.step, "release_id": progress.release_id}
            rows, notes = _language_model(built, config, about, draft, mesh, opened, (int8, prune, distill_steps))
        found = {
            "stage": progress.stage,
            "step": progress.step,
            "release_id": progress.release_id,
            "device": f"{mesh.device.type}, {torch.get_num_threads()} threads, torch {torch.__version__}",
            "rows": rows,
            "notes": notes,
        }
        publish_json(UPath(draft / "table.json"), found)
        (draft / "table.md").write_text(markdown(found), encoding="utf-8")
        _publish(draft, output)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return found


def _check_request(
    progress: Progress, output: Path, int8: bool, prune: float | None, distill_steps: int | None, release: str | None
) -> None:
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"{output}: is there already. Remedy: another folder, or delete this one.")
    if progress.stage == "align" and (int8 or prune is not None or distill_steps is not None):
        raise UserError(
            "int8, pruning and distillation make language models smaller; stage `align` has none. "
            "Remedy: export it without them."
        )
    if prune is not None and not 0 < prune < 1:
        raise UserError(f"prune {prune:g}: the share of neurons that go lies between 0 and 1")
    if distill_steps is not None and distill_steps < 1:
        raise UserError(f"distillation for {distill_steps} steps would teach the student nothing")
    if distill_steps is not None and release is None:
        raise UserError("distillation learns from a release, and none is given. Remedy: --release RELEASE.")


def _open(release: str, checkpoint: Path, progress: Progress, config: TrainConfig) -> TrainingRelease:
    opened = open_training_release(release, checkpoint.parent.parent.parent / "data")
    if (progress.release_id, progress.release_digest) != (opened.id, opened.digest) and not config.allow_release_change:
        raise UserError(
            f"{checkpoint}: was trained on release {progress.release_id}, not on {opened.id}, whose held-out samples "
            "it may have learned. Remedy: give the release that it was trained on."
        )
    return opened


def _publish(draft: Path, output: Path) -> None:
    """Everything on disk, then one rename."""
    for path in (*draft.rglob("*"), draft):
        sync(path)
    draft.rename(output)
    sync(output.parent)


def _language_model(
    built: StageModel,
    config: TrainConfig,
    about: dict[str, Any],
    draft: Path,
    mesh: Mesh,
    release: TrainingRelease | None,
    variants: tuple[bool, float | None, int | None],
) -> tuple[list[dict[str, Any]], list[str]]:
    """Writes the folder and its variants; a row for each, measured on what was written, and what is to be known."""
    int8, prune, distill_steps = variants
    comparison = Comparison(built, config, mesh, release)
    before = copy.deepcopy(built)
    merge_lora(built.llm)
    write_model(built, config, about, draft)
    merged = load_exported(draft)
    rows = [comparison.row("checkpoint", tensor_bytes(before.model), before, merged)]
    del built, before

    def add(name: str, folder: Path) -> None:
        rows.append(comparison.row(name, folder_bytes(folder), load_exported(folder), merged))

    add("merged", draft)
    if int8:
        shrink.quantise(draft, draft / "int8")
        _complete(draft / "int8", draft)
        add("int8", draft / "int8")
    if prune is not None:
        shrink.prune(draft, draft / "pruned", prune)
        _complete(draft / "pruned", draft)
        add("pruned", draft / "pruned")
    if distill_steps is not None and release is not None:
        student = shrink.distil(load_exported(draft), release, distill_steps, mesh)
        write_model(student, config, {**about, "distill_steps": distill_steps}, draft / "distilled")
        add("distilled", draft / "distilled")
    assert merged.codec is not None
    tokenizer = merged.codec.tokenizer
    if is_known_tokenizer(tokenizer, draft, TEXTS):
        return rows, []
    kind = type(tokenizer).__name__
    return rows, [f"`AutoTokenizer` takes another tokenizer for this model; `transformers.{kind}` reads its own."]


def _complete(variant: Path, folder: Path) -> None:
    """A variant's language model stands; the tokenizer and what sees and hears are those of the folder."""
    shutil.copytree(folder / BESIDE, variant / BESIDE)
    for path in folder.iterdir():
        if path.is_file() and ".safetensors" not in path.name and not (variant / path.name).exists():
            shutil.copy2(path, variant)


@torch.no_grad()
def _towers(
    built: StageModel, config: TrainConfig, draft: Path, mesh: Mesh, release: TrainingRelease | None
) -> list[dict[str, Any]]:
    """Writes the towers; a row for the checkpoint's and for those that were opened again."""
    from mmdata.config import Score
    from mmdata.score.pretrained import load_model

    encoder = cast(DualEncoder, built.model)
    save_scorer(encoder, config.model.encoder, draft)
    loaded = load_model(Score(model=f"local-dir:{draft}", pretrained=None))
    vision, text = OpenClipVision(loaded.model.visual, loaded.preprocess), OpenClipText(loaded.model.text)
    scale, bias = float(loaded.model.logit_scale), float(encoder.logit_bias)
    again = DualEncoder(vision, text, loaded.tokenizer, encoder.audio, scale, bias).eval()
    held_out = held_out_batches(built, config, release, mesh) if release is not None else []
    height, width = vision.preprocess.size
    pixels = (torch.arange(PICTURES * 3 * height * width) * 97 % 251).reshape(PICTURES, 3, height, width).byte()

    def embedded(model: DualEncoder) -> Tensor:
        return torch.cat([model.vision(model.normalised(pixels)), model.text(model.tokenize(list(TEXTS)))])

    expected = embedded(encoder)
    difference = float((embedded(again) - expected).abs().max())
    shown = again.normalised(pixels).to(mesh.device)
    seconds = alternating_s(*(partial(_look, model.to(mesh.device), shown) for model in (encoder, again)))
    measured = (
        ("checkpoint", tensor_bytes(encoder), encoder, seconds[0], 0.0),
        ("open_clip", folder_bytes(draft), again, seconds[1], difference),
    )
    return [
        {
            "name": name,
            "bytes": size,
            "parameters": sum(p.numel() for p in model.parameters()),
            "pictures_per_s": PICTURES / taken_s,
            "embedding_difference": change,
            **(validate(replace(built, model=model), model, held_out, config, mesh) if held_out else {}),
        }
        for name, size, model, taken_s, change in measured
    ]


def _look(model: DualEncoder, pixels: Tensor) -> float:
    return float(model.vision(pixels).sum())  # waits for the device
