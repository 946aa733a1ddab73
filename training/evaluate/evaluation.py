"""Measures a checkpoint on held-out data for `mmdata evaluate` and the pipelines. Writes JSON and a Markdown table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from upath import UPath

from mmdata.display import markdown as markdown_cell
from mmdata.errors import UserError
from mmdata.report.captions_page import captions_page
from mmdata.report.model_captions import CAPTIONS_PAGE, caption_facts
from mmdata.storage.atomic import publish_bytes, publish_json
from training.checkpoint.checkpoints import check_release, find_checkpoint, read_progress
from training.config import Data, TrainConfig
from training.data.batch_readers import EmptySplit, PairReader, Reader, RowReader, Share
from training.data.batch_stream import first_batches
from training.data.batch_types import PairBatch
from training.data.feature_cache import NO_FEATURES, CachedFeatures
from training.data.media_tensors import MediaSpec, decode_picture
from training.data.training_data import TrainingData, open_measured
from training.distributed.process_mesh import Mesh, join_processes
from training.evaluate.held_out_answers import Answer, answer_metrics, captioned_pictures, generate_answers
from training.evaluate.zero_shot import PROMPT, ClassQuestion, classify_pictures, report_lines, report_metrics
from training.metrics.image_metrics import fid_and_inception_score
from training.metrics.inception import load_inception
from training.metrics.text_metrics import perplexity
from training.model.encoders import DualEncoder
from training.model.multimodal_lm import MultimodalLm
from training.model.packed_rows import with_other_pictures
from training.stages.frozen_towers import cached_features, fill_tables, frozen_towers
from training.stages.generative import global_tokens, with_stand_ins
from training.stages.held_out_pairs import HeldOutPairs
from training.stages.stage_model import StageModel, load_model
from training.stages.stage_reader import make_reader
from training.trainer import precision

ANSWERS = 64  # generated from as many held-out samples, by default
PICTURE_SUFFIXES = (".jpeg", ".jpg", ".png", ".webp")
PICTURES_AT_ONCE = 64  # generated ones, that are decoded and measured
MAX_TABLE_ANSWERS = 20  # in metrics.md; metrics.json has all


def evaluate(
    checkpoint: Path,
    release: str,
    *,
    samples: int | None = None,
    generate: int = ANSWERS,
    generated: Path | None = None,
    extractor: torch.nn.Module | None = None,
    classifier: torch.nn.Module | None = None,
    inception: Path | None = None,
    classify: str | None = None,
    classes: Path | None = None,
    class_prompt: str = PROMPT,
    allow_release_change: bool = False,
) -> dict[str, Any]:
    """Measure a checkpoint on the held-out split of a release, and write metrics.json and metrics.md beside it.

    Stage `align`: Recall@1/5/10 and mAP in both directions. Stages `joint` and `instruct`: perplexity, and the loss
    with the pictures of other samples; of generated answers BLEU, ROUGE and, if the expected answers are short, VQA
    accuracy. Stage `joint` also: the share of captions that name the concept of their sample, and captions.html, which
    shows captions beside their pictures.

    Args:
        checkpoint: a checkpoint, or a stage's folder.
        samples: the most held-out samples that are used; None: all.
        generate: the number of answers that are generated.
        generated: a folder of pictures that some model generated for these captions. Their FID (and Inception score)
            against the held-out pictures is measured too.
        extractor: uint8 N,3,H,W -> features N,D for the FID; None: the checkpoint's own image tower.
        classifier: uint8 N,3,H,W -> logits N,K for the Inception score; None: no Inception score.
        inception: a file of InceptionV3's weights, which gives the extractor and the classifier.
        classify: a column with the true classes of the pictures, which are then classified by the names of the classes,
            without training for it (stage `align`): `concept` of the release, or a column of the source.
        classes: a file with a class name a line; None: all classes that the column holds.
        class_prompt: the text of a class; {} stands for its name.

    Returns:
        The content of metrics.json: stage, step, release, samples, metrics, answers; if asked for, `classification` and
        `fid_features_of`, which names the extractor.

    Raises UserError: there is no checkpoint, it was trained on another release, or the release holds nothing out.
    Raises DataError: the checkpoint or the release is broken.
    """
    folder = find_checkpoint(checkpoint)
    run_folder, stage_folder = folder.parent.parent.parent, folder.parent.parent
    progress = read_progress(folder)
    _check_request(folder, progress.stage, classify, generated, inception)
    if inception is not None:
        extractor, classifier = load_inception(inception)
    built, config = load_model(folder)
    mesh = join_processes(config.parallel.model_copy(update={"tp": 1, "pp": 1}), config.device)
    opened = open_measured(release, config.data, run_folder / "data")
    origin = opened.origin(progress.stage)
    is_change_allowed = allow_release_change or config.allow_release_change
    check_release(progress, origin.id, origin.digest, is_change_allowed, folder, one_of_several=True)
    built.model.to(mesh.device).eval()
    towers = frozen_towers(built, config, run_folder / "data" / "features")
    reader = _held_out_reader(built, opened, config, samples, cached_features(towers))
    count = min(samples or len(reader.source), len(reader.source))
    if count < len(reader.source):
        count -= count % reader.batch_size  # whole batches only: just the last batch of a split may be padded
    if towers:
        autocast, _ = precision(config.parallel.precision, mesh.device)
        alone = Mesh(mesh.device, {})
        fill_tables(built, towers, [(reader, count + reader.batch_size)], alone, config.data.workers, autocast)
    metrics: dict[str, float]
    answers: list[Answer] = []
    classification: dict[str, Any] | None = None
    if isinstance(built.model, DualEncoder):
        assert isinstance(reader, PairReader)
        pairs = _embedded_pairs(built.model, reader, count, mesh.device, config.data)
        metrics = pairs.scores()
        if classify is not None:
            question = ClassQuestion(classify, classes, class_prompt)
            of_release = opened.releases[0][0]
            classification = classify_pictures(built.model, question, reader, of_release, count, *pairs.pictures())
            metrics |= report_metrics(classification)
    else:
        assert isinstance(reader, RowReader)
        metrics = _perplexity(built.model, reader, count, mesh.device, config.data)
        answers = generate_answers(built, reader, opened, min(generate, count), mesh.device)
        metrics |= answer_metrics(answers)
    if generated is not None:
        pictures = _held_out_reader(built, opened, config, samples, NO_FEATURES)
        metrics |= _generated_pictures(built, pictures, count, generated, extractor, classifier)
    evaluation = {
        "stage": progress.stage,
        "step": progress.step,
        "checkpoint": folder.name,
        "release_id": origin.id,
        "samples": count,
        "metrics": metrics,
        "answers": answers,
    }
    if classification is not None:
        evaluation["classification"] = classification
    if generated is not None:
        evaluation["fid_features_of"] = _extractor_name(inception, extractor)
    _publish(stage_folder, evaluation, reader)
    return evaluation


def _check_request(
    folder: Path, stage: str, classify: str | None, generated: Path | None, inception: Path | None
) -> None:
    if classify is not None and stage != "align":
        raise UserError(
            f"{folder}: classifying by names compares pictures with texts, as stage `align` learns to; this is a "
            f"checkpoint of stage `{stage}`. Remedy: give the folder of stage `align`."
        )
    if inception is not None and generated is None:
        raise UserError(
            f"{inception}: is for the FID of generated pictures. Remedy: give their folder too (--pictures)."
        )


def _publish(stage_folder: Path, evaluation: dict[str, Any], reader: PairReader | RowReader) -> None:
    """Write metrics.json, metrics.md, and for captions captions.html."""
    publish_json(UPath(stage_folder / "metrics.json"), evaluation)
    publish_bytes(UPath(stage_folder / "metrics.md"), _markdown(evaluation).encode())
    answers = evaluation["answers"]
    if evaluation["stage"] == "joint" and answers and isinstance(reader, RowReader):
        title = f"Captions of release {evaluation['release_id']}, step {evaluation['step']}"
        page = captions_page(title, caption_facts(evaluation["metrics"]), captioned_pictures(reader, answers))
        publish_bytes(UPath(stage_folder / CAPTIONS_PAGE), page.encode())


def _extractor_name(inception: Path | None, extractor: torch.nn.Module | None) -> str:
    if inception is not None:
        return f"InceptionV3 ({inception.name})"
    return "the image tower of the checkpoint" if extractor is None else type(extractor).__name__


def _held_out_reader(
    built: StageModel,
    data: TrainingData,
    config: TrainConfig,
    samples: int | None,
    features: CachedFeatures,
) -> PairReader | RowReader:
    try:
        return make_reader(built, data, config, "validation", min(64, samples or 64), Share(), features)
    except EmptySplit:
        raise UserError(
            f"{data.origin(built.stage).id} holds nothing out on which stage `{built.stage}` can be measured. "
            "Remedy: a larger shards.validation_fraction in corpus.yaml, and a new release; of an own file, a larger "
            "held_out in data.sources."
        ) from None


@torch.no_grad()
def _embedded_pairs(
    model: DualEncoder, reader: PairReader, count: int, device: torch.device, data: Data
) -> HeldOutPairs:
    """The embeddings of the first pairs of a reader's order. Each process measures the whole split."""
    pairs = HeldOutPairs(Mesh(device, {}))
    for batch in first_batches(reader, count, device, data.workers, data.prefetch):
        pairs.add(model(batch), batch)
    return pairs


@torch.no_grad()
def _perplexity(
    model: MultimodalLm, reader: RowReader, count: int, device: torch.device, data: Data
) -> dict[str, float]:
    """Perplexity and loss; and the loss of the same tokens when every picture is that of another sample.

    Each process measures the whole split, so nothing is summed over processes.
    """
    mesh = Mesh(device, {})
    totals = torch.zeros(3, dtype=torch.float64, device=device)  # nats, nats with other pictures, tokens
    can_swap = True
    for batch in first_batches(reader, count, device, data.workers, data.prefetch):
        swapped = with_other_pictures(batch)
        can_swap = can_swap and swapped is not None
        losses = [model(with_stand_ins(rows, model))["loss"] for rows in (batch, swapped or batch)]
        totals[:2] += torch.stack(losses).double()
        totals[2] += global_tokens(batch, mesh)
    nats, other_nats, tokens = totals.tolist()
    metrics = {"perplexity": perplexity(nats, tokens), "loss": nats / tokens}
    return metrics | ({"loss_with_other_pictures": other_nats / tokens} if can_swap else {})


class _TowerFeatures(torch.nn.Module):
    """A checkpoint's image tower as a feature extractor: uint8 N,3,H,W -> N,D."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels_NCHW: torch.Tensor) -> torch.Tensor:
        pixels = (pixels_NCHW.float() / 255 - self.model.pixel_mean) / self.model.pixel_std
        return self.model.vision(pixels)


def _generated_pictures(
    built: StageModel,
    reader: Reader[Any, Any],
    count: int,
    folder: Path,
    extractor: torch.nn.Module | None,
    classifier: torch.nn.Module | None,
) -> dict[str, float]:
    """FID and Inception score of a folder of generated pictures against the held-out pictures."""
    model = built.model.cpu()
    spec = MediaSpec(model.vision.preprocess)
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES)
    if not paths:
        raise UserError(f"{folder}: no pictures there. Remedy: a folder with {', '.join(PICTURE_SUFFIXES)} files.")
    generated = (
        torch.stack([decode_picture(path.read_bytes(), spec) for path in paths[at : at + PICTURES_AT_ONCE]])
        for at in range(0, len(paths), PICTURES_AT_ONCE)
    )
    held_out = first_batches(reader, count, torch.device("cpu"))
    pictures = (batch.picture if isinstance(batch, PairBatch) else batch.picture.data for batch in held_out)
    real = (pixels for pixels in pictures if pixels is not None)
    return fid_and_inception_score(real, generated, extractor or _TowerFeatures(model), classifier)


def _markdown(evaluation: dict[str, Any]) -> str:
    """The metrics as a table."""
    lines = [
        f"# {evaluation['stage']}, step {evaluation['step']}, on release {evaluation['release_id']}",
        "",
        f"{evaluation['samples']} held-out samples.",
        "",
        "| metric | value |",
        "|---|---:|",
        *(f"| {name} | {value:.4f} |" for name, value in evaluation["metrics"].items()),
    ]
    if "fid_features_of" in evaluation:
        lines += ["", f"`fid` is of the features of {evaluation['fid_features_of']}."]
    if "classification" in evaluation:
        lines += report_lines(evaluation["classification"])
    if evaluation["answers"]:
        lines += ["", "| asked | expected | generated |", "|---|---|---|"]
        for answer in evaluation["answers"][:MAX_TABLE_ANSWERS]:
            cells = (markdown_cell(answer[name]) for name in ("prompt", "expected", "generated"))
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
