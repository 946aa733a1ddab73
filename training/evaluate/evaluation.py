"""`mmdata evaluate CHECKPOINT RELEASE`: held-out metrics of a stage, as JSON and as a Markdown table beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from upath import UPath

from mmdata.display import markdown as cell
from mmdata.errors import UserError
from mmdata.storage.atomic import publish_bytes, publish_json
from training.checkpoint.checkpoints import check_release, find_checkpoint, read_progress
from training.config import TrainConfig
from training.data.batch_readers import EmptySplit, PairReader, RowReader, Share, first_batches
from training.data.batch_types import PairBatch, RowBatch, to_device
from training.data.examples import Example
from training.data.media_tensors import MediaSpec, decode_picture
from training.data.row_layout import EncodedRow, lay_out
from training.data.sample_index import open_training_release
from training.data.text_codec import IGNORED, MEDIA_PLACEHOLDER, Encoded
from training.distributed.process_mesh import Mesh, join_processes
from training.metrics.image_metrics import fid_and_inception_score
from training.metrics.retrieval import retrieval_by_kind
from training.metrics.text_metrics import Perplexity, bleu, rouge, vqa_accuracy
from training.model.encoders import DualEncoder
from training.model.multimodal_lm import MultimodalLm
from training.stages.generative import global_tokens, with_stand_ins
from training.stages.saved_model import load_model
from training.stages.stage_model import StageModel
from training.stages.stage_reader import make_reader

GENERATED = 64  # held-out samples that an answer is generated for, unless told otherwise
ANSWER_TOKENS = 96
PICTURES = {".jpg", ".jpeg", ".png", ".webp"}
SHORT_ANSWER_WORDS = 3  # an answer up to this long is scored as VQA scores them


def evaluate(
    checkpoint: Path,
    release: str,
    *,
    samples: int | None = None,
    generate: int = GENERATED,
    generated: Path | None = None,
    extractor: torch.nn.Module | None = None,
    classifier: torch.nn.Module | None = None,
    allow_release_change: bool = False,
) -> dict[str, Any]:
    """Measure a checkpoint on the held-out split of a release.

    Stage `align`: Recall@1/5/10 and mAP both ways. Stages `joint` and `instruct`: perplexity, and of generated answers
    BLEU, ROUGE and, for short ones, VQA accuracy.

    Args:
        checkpoint: a checkpoint, or a stage's folder.
        samples: at most so many held-out samples; None: all.
        generate: answers generated.
        generated: folder of pictures that some model made for these captions: FID (and IS) against the held-out ones.
        extractor: uint8 N,3,H,W -> features N,D for FID; None: the checkpoint's own image tower.
        classifier: uint8 N,3,H,W -> logits N,K for the Inception score; None: no such score.

    Returns:
        What metrics.json holds: stage, step, release, samples, metrics, and answers with what was right.

    Raises:
        UserError: no checkpoint, or one of another release.
        DataError: the release is broken or holds nothing out.
    """
    place = find_checkpoint(checkpoint)
    progress = read_progress(place)
    built, config = load_model(place)
    mesh = join_processes(config.parallel.model_copy(update={"tp": 1, "pp": 1}), config.device)
    opened = open_training_release(release, _output(place) / "data")
    allowed = allow_release_change or config.allow_release_change
    check_release(progress, opened.id, opened.digest, allowed, place)
    built.model.to(mesh.device).eval()
    reader = _held_out(built, opened, config, samples)
    count = min(samples or len(reader.source), len(reader.source))
    if count < len(reader.source):
        count -= count % reader.batch_size  # whole batches; only the split's own last one is padded
    metrics: dict[str, float]
    answers: list[dict[str, str]] = []
    if isinstance(built.model, DualEncoder):
        assert isinstance(reader, PairReader)
        metrics = _retrieval(built.model, reader, count, mesh)
    else:
        assert isinstance(reader, RowReader)
        metrics = _perplexity(built.model, reader, count, mesh)
        answers = generate_answers(built, reader, min(generate, count), mesh)
        metrics |= answer_metrics(answers)
    if generated is not None:
        metrics |= _generated_pictures(built, reader, count, generated, extractor, classifier)
    found = {
        "stage": progress.stage,
        "step": progress.step,
        "checkpoint": place.name,
        "release_id": opened.id,
        "samples": count,
        "metrics": metrics,
        "answers": answers,
    }
    publish_json(UPath(_beside(place) / "metrics.json"), found)
    publish_bytes(UPath(_beside(place) / "metrics.md"), markdown(found).encode())
    return found


def _output(checkpoint: Path) -> Path:
    """The run's folder of a checkpoint `<output>/<stage>/checkpoints/<step>`."""
    return checkpoint.parent.parent.parent


def _beside(checkpoint: Path) -> Path:
    return checkpoint.parent.parent


def _held_out(built: StageModel, release: Any, config: TrainConfig, samples: int | None) -> PairReader | RowReader:
    size = min(64, samples or 64)
    try:
        return make_reader(built, release, config, "validation", size, Share())
    except EmptySplit:
        raise UserError(
            f"release {release.id} holds nothing out that stage `{built.stage}` can be measured on. "
            "Remedy: a larger shards.validation_fraction in corpus.yaml, and a new release."
        ) from None


@torch.no_grad()
def _retrieval(model: DualEncoder, reader: PairReader, count: int, mesh: Mesh) -> dict[str, float]:
    text, visual, group, audio = [], [], [], []
    for batch in first_batches(reader, count, mesh.device):
        real = batch.weight > 0
        found = model(batch)
        text.append(found["text"][real].cpu())
        visual.append(found["visual"][real].cpu())
        group.append(batch.group[real].cpu())
        if "audio" in found:
            audio.append(found["audio"][real].cpu())
    sounds = torch.cat(audio) if audio else None
    return retrieval_by_kind(torch.cat(text), torch.cat(visual), sounds, torch.cat(group))


@torch.no_grad()
def _perplexity(model: MultimodalLm, reader: RowReader, count: int, mesh: Mesh) -> dict[str, float]:
    meter = Perplexity(mesh.device)
    for batch in first_batches(reader, count, mesh.device):
        tokens = global_tokens(batch, mesh)
        meter.update(model(with_stand_ins(batch, model))["loss"], tokens)
    perplexity = meter.compute()
    return {"perplexity": perplexity, "loss": float(torch.tensor(perplexity).log())}


@torch.no_grad()
def generate_answers(built: StageModel, reader: RowReader, count: int, mesh: Mesh) -> list[dict[str, str]]:
    """Greedy answers to held-out samples, one after the other: uid, prompt, expected, generated."""
    model, codec = built.model, built.codec
    assert isinstance(model, MultimodalLm)
    assert codec is not None
    answers = []
    for at in reader.order.at(0, np.arange(count)):
        example, _ = reader.example(int(at))
        if built.stage == "instruct":
            prompt, expected = codec.prompt(example.turns[:-1]), example.turns[-1].text
            asked = " ".join(turn.text for turn in example.turns[:-1])
        else:
            encoded = reader.encode(example)
            prompt, expected, asked = Encoded(encoded.ids[:1], [IGNORED], encoded.media_at), example.turns[-1].text, ""
        batch = to_device(prompt_batch(reader, example, prompt), mesh.device)
        ids = model.generate(batch, ANSWER_TOKENS, codec.eos)
        asked = asked.replace(MEDIA_PLACEHOLDER, "<media> ").strip()
        answers.append({"uid": example.uid, "prompt": asked, "expected": expected, "generated": codec.decode(ids)})
    return answers


def prompt_batch(reader: RowReader, example: Example, prompt: Encoded) -> RowBatch:
    """One row that ends where the answer begins."""
    layout = reader.layout
    media = example.media
    pictures = 0 if media.pictures is None else len(media.pictures)
    sounds = int(media.sound is not None)
    length = len(prompt.ids) + pictures * layout.picture_tokens + sounds * layout.sound_tokens
    return lay_out([EncodedRow([example], [prompt], 0, 0)], 1, length, layout, 0)


def answer_metrics(answers: list[dict[str, str]]) -> dict[str, float]:
    """BLEU and ROUGE of all answers; exact VQA accuracy of those whose right answer is short."""
    if not answers:
        return {}
    generated, expected = [one["generated"] for one in answers], [one["expected"] for one in answers]
    metrics = {**bleu(generated, expected), **rouge(generated, expected)}
    short = [one for one in answers if len(one["expected"].split()) <= SHORT_ANSWER_WORDS]
    if short:
        right = vqa_accuracy([one["generated"] for one in short], [[one["expected"]] for one in short])
        metrics |= {"vqa_accuracy": right, "vqa_answers": float(len(short))}
    return metrics


class _Tower(torch.nn.Module):
    """A checkpoint's image tower as a feature extractor: uint8 N,3,H,W -> N,D."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels_NCHW: torch.Tensor) -> torch.Tensor:
        pixels = (pixels_NCHW.float() / 255 - self.model.pixel_mean) / self.model.pixel_std
        return self.model.vision(pixels)


def _generated_pictures(
    built: StageModel,
    reader: PairReader | RowReader,
    count: int,
    folder: Path,
    extractor: torch.nn.Module | None,
    classifier: torch.nn.Module | None,
) -> dict[str, float]:
    model = built.model.cpu()
    spec = MediaSpec(model.vision.preprocess)
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURES)
    if not paths:
        raise UserError(f"{folder}: no pictures there ({', '.join(sorted(PICTURES))})")
    made = torch.stack([decode_picture(path.read_bytes(), spec) for path in paths])
    held_out = first_batches(reader, count, torch.device("cpu"))
    pictures = [batch.picture if isinstance(batch, PairBatch) else batch.picture.data for batch in held_out]
    real = torch.cat([pixels for pixels in pictures if pixels is not None])
    return fid_and_inception_score(real, made, extractor or _Tower(model), classifier)


def markdown(found: dict[str, Any]) -> str:
    """The metrics as a table."""
    lines = [
        f"# {found['stage']}, step {found['step']}, on release {found['release_id']}",
        "",
        f"{found['samples']} held-out samples.",
        "",
        "| metric | value |",
        "|---|---:|",
        *(f"| {name} | {value:.4f} |" for name, value in found["metrics"].items()),
    ]
    if found["answers"]:
        lines += ["", "| asked | expected | generated |", "|---|---|---|"]
        cells = ((one["prompt"], one["expected"], one["generated"]) for one in found["answers"][:20])
        lines += ["| " + " | ".join(cell(text) for text in row) + " |" for row in cells]
    return "\n".join(lines) + "\n"
