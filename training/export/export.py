"""`mmdata export`: writes a trained model as a folder that other libraries load, smaller variants, and a table."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from upath import UPath

from mmdata.errors import UserError
from mmdata.storage.atomic import TEMPORARY, publish_json, sync
from mmdata.storage.digests import write_digests
from training.checkpoint.checkpoints import Progress, check_release, find_checkpoint, read_progress
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
from training.export.exported import MEDIA_FOLDER, is_auto_tokenizer_right, load_exported, quiet, write_model
from training.export.llava import check_llava, write_llava
from training.model.encoders import DualEncoder, build_encoder, is_hf_dual
from training.model.hf_dual_towers import HfDualVision
from training.model.llm import merge_lora
from training.model.scorer_folder import save_scorer
from training.model.towers import OpenClipText, OpenClipVision
from training.model_config import Audio, Encoder
from training.stages.stage_model import StageModel, load_model
from training.stages.stage_step import validate

TIMED_PICTURES = 16  # in one batch

Row = dict[str, Any]  # of the table; `comparison.COLUMNS` names its keys


@dataclass(frozen=True, slots=True)
class _Variants:
    """The further variants that are asked for; see `export`."""

    int8: bool
    prune: float | None
    distill_steps: int | None
    llava: bool


def export(
    checkpoint: Path,
    output: Path,
    *,
    int8: bool = False,
    prune: float | None = None,
    distill_steps: int | None = None,
    llava: bool = False,
    release: str | None = None,
) -> dict[str, Any]:
    """Write a checkpoint as a folder of safetensors and JSON, completely or not at all.

    Stages `joint` and `instruct`: the folder is the plain language model, adapters merged, for `AutoModelForCausalLM`
    and `AutoTokenizer`; `multimodal/` in it has the rest, for `load_exported`. Variants have the same form and are in
    `int8/`, `pruned/` and `distilled/`. Stage `align`: the folder is both towers, for
    `open_clip.create_model("local-dir:OUTPUT")` (a CLIP or SigLIP of transformers: for `AutoModel`), without a sound
    tower. `table.md` and `table.json` compare size, speed
    and quality.

    Args:
        checkpoint: a checkpoint, or a stage's folder.
        output: a folder that does not exist or is empty.
        int8: also write a variant with int8 weights.
        prune: also write a variant without this share of its MLP neurons, 0 to 1.
        distill_steps: also write a student with half the layers, trained on the release for this many steps.
        llava: also write it in LLaVA's architecture to `llava/`, for `AutoModelForImageTextToText`.
        release: the one that the checkpoint was trained on. With it, quality is measured on the held-out split.

    Returns:
        The content of table.json: stage, step, release, device, a row for the checkpoint and each folder, and notes.

    Raises UserError: an impossible request, an output that is not empty, or a checkpoint of another release.
    Raises DataError: the checkpoint or the release is broken.
    """
    folder = find_checkpoint(checkpoint)
    progress = read_progress(folder)
    variants = _Variants(int8, prune, distill_steps, llava)
    _check_request(progress, output, variants, release)
    with quiet():
        built, config = load_model(folder)
    mesh = join_processes(config.parallel.model_copy(update={"tp": 1, "pp": 1}), config.device)
    opened = None if release is None else _open_release(release, folder, progress, config)
    draft = output.parent / f"{TEMPORARY}{output.name}"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        notes: list[str] = []
        if isinstance(built.model, DualEncoder):
            rows = _export_towers(built, config, draft, mesh, opened)
        else:
            origin = {"step": progress.step, "release_id": progress.release_id}
            rows, notes = _export_language_model(built, config, origin, draft, mesh, opened, variants)
        table = {
            "stage": progress.stage,
            "step": progress.step,
            "release_id": progress.release_id,
            "device": f"{mesh.device.type}, {torch.get_num_threads()} threads, torch {torch.__version__}",
            "rows": rows,
            "notes": notes,
        }
        publish_json(UPath(draft / "table.json"), table)
        (draft / "table.md").write_text(markdown(table), encoding="utf-8")
        write_digests(sorted(draft.rglob("*.safetensors")))
        for path in (*draft.rglob("*"), draft):
            sync(path)
        draft.rename(output)
        sync(output.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return table


def _check_request(progress: Progress, output: Path, variants: _Variants, release: str | None) -> None:
    prune, distill_steps = variants.prune, variants.distill_steps
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"{output}: exists already. Remedy: give another folder, or delete this one.")
    if progress.stage == "align" and (
        variants.int8 or variants.llava or prune is not None or distill_steps is not None
    ):
        raise UserError(
            "int8, pruning, distillation and LLaVA are variants of language models; stage `align` has none. "
            "Remedy: export it without them."
        )
    if prune is not None and not 0 < prune < 1:
        raise UserError(f"prune {prune:g}: the share of neurons to remove must be between 0 and 1")
    if distill_steps is not None and distill_steps < 1:
        raise UserError(f"distillation for {distill_steps} steps would teach the student nothing")
    if distill_steps is not None and release is None:
        raise UserError("distillation needs a release to learn from. Remedy: --release RELEASE.")


def _open_release(release: str, checkpoint: Path, progress: Progress, config: TrainConfig) -> TrainingRelease:
    """Open the release of the checkpoint. Another one could hold out samples that the model has learned."""
    opened = open_training_release(release, checkpoint.parent.parent.parent / "data")
    remedy = "give the release that it was trained on, whose held-out samples it has not learned"
    allowed = config.allow_release_change
    check_release(progress, opened.id, opened.digest, allowed, checkpoint, remedy, one_of_several=True)
    return opened


def _export_language_model(
    built: StageModel,
    config: TrainConfig,
    origin: Mapping[str, Any],
    draft: Path,
    mesh: Mesh,
    release: TrainingRelease | None,
    variants: _Variants,
) -> tuple[list[Row], list[str]]:
    """Write a generative model and its variants.

    Returns:
        A row for the checkpoint and each folder, measured on the files that were written; and notes for the reader.
    """
    if variants.llava:
        check_llava(built.generative()[0])  # before the work begins
    comparison = Comparison(built, config, mesh, release)
    before = copy.deepcopy(built)
    merge_lora(built.llm)
    write_model(built, config, origin, draft)
    merged = load_exported(draft)
    notes = []
    if variants.llava:
        difference = write_llava(merged, draft / "llava")
        notes.append(
            "`llava`: `AutoModelForImageTextToText` and `AutoProcessor` read it. Its logits differ from the merged "
            f"model's by {difference:.1g} of the largest."
        )
    rows = [comparison.row("checkpoint", tensor_bytes(before.model), before, merged)]
    del built, before

    def add_row(name: str, folder: Path) -> None:
        rows.append(comparison.row(name, folder_bytes(folder), load_exported(folder), merged))

    add_row("merged", draft)
    if variants.int8:
        shrink.quantise(draft, draft / "int8")
        _copy_other_parts(draft, draft / "int8")
        add_row("int8", draft / "int8")
    if variants.prune is not None:
        shrink.prune(draft, draft / "pruned", variants.prune)
        _copy_other_parts(draft, draft / "pruned")
        add_row("pruned", draft / "pruned")
    if variants.distill_steps is not None and release is not None:
        student = shrink.distil(load_exported(draft), release, variants.distill_steps, mesh)
        write_model(student, config, {**origin, "distill_steps": variants.distill_steps}, draft / "distilled")
        add_row("distilled", draft / "distilled")
    assert merged.codec is not None
    tokenizer = merged.codec.tokenizer
    if not is_auto_tokenizer_right(tokenizer, draft, TEXTS):
        name = type(tokenizer).__name__
        notes.append(f"`AutoTokenizer` takes another tokenizer for this model; `transformers.{name}` reads its own.")
    return rows, notes


def _copy_other_parts(folder: Path, variant: Path) -> None:
    """Complete a variant that has only its language model: copy the tokenizer, encoders and connector."""
    shutil.copytree(folder / MEDIA_FOLDER, variant / MEDIA_FOLDER)
    for path in folder.iterdir():
        if path.is_file() and ".safetensors" not in path.name and not (variant / path.name).exists():
            shutil.copy2(path, variant)


@torch.no_grad()
def _export_towers(
    built: StageModel, config: TrainConfig, draft: Path, mesh: Mesh, release: TrainingRelease | None
) -> list[Row]:
    """Write the towers of stage `align`. Returns a row for the checkpoint and one for the towers as read back."""
    encoder = cast(DualEncoder, built.model)
    save_scorer(encoder, config.model.encoder, draft)
    reopened = _open_towers(draft, encoder, config.model.encoder)
    library = "transformers" if isinstance(encoder.vision, HfDualVision) else "open_clip"
    held_out = held_out_batches(built, config, release, mesh) if release is not None else []
    height, width = encoder.vision.preprocess.size
    pixels = (torch.arange(TIMED_PICTURES * 3 * height * width) * 97 % 251).byte()
    pixels = pixels.reshape(TIMED_PICTURES, 3, height, width)

    def embed(model: DualEncoder) -> Tensor:
        return torch.cat([model.vision(model.normalised(pixels)), model.text(model.tokenize(list(TEXTS)))])

    difference = float((embed(reopened) - embed(encoder)).abs().max())
    normalised = reopened.normalised(pixels).to(mesh.device)

    def embed_and_wait(model: DualEncoder) -> float:
        return float(model.vision(normalised).sum())  # a float, so that the device is waited for

    seconds = alternating_s(*(partial(embed_and_wait, model.to(mesh.device)) for model in (encoder, reopened)))
    measured = (
        ("checkpoint", tensor_bytes(encoder), encoder, seconds[0], 0.0),
        (library, folder_bytes(draft), reopened, seconds[1], difference),
    )
    return [
        {
            "name": name,
            "bytes": size_bytes,
            "parameters": sum(p.numel() for p in model.parameters()),
            "pictures_per_s": TIMED_PICTURES / taken_s,
            "embedding_difference": embedding_difference,
            **(validate(replace(built, model=model), model, held_out, config, mesh) if held_out else {}),
        }
        for name, size_bytes, model, taken_s, embedding_difference in measured
    ]


def _open_towers(folder: Path, encoder: DualEncoder, config: Encoder) -> DualEncoder:
    """The towers of a folder as mmdata's scorer opens them, and the rest of the encoder that they come from."""
    from mmdata.config import Score
    from mmdata.score import pretrained

    if is_hf_dual(config):
        return build_encoder(config.model_copy(update={"model": str(folder)}), Audio()).eval()
    loaded = pretrained.load_model(Score(model=f"local-dir:{folder}", pretrained=None))
    vision, text = OpenClipVision(loaded.model.visual, loaded.preprocess), OpenClipText(loaded.model.text)
    scale, bias = float(loaded.model.logit_scale), float(encoder.logit_bias)
    return DualEncoder(vision, text, loaded.tokenizer, encoder.audio, scale, bias).eval()
