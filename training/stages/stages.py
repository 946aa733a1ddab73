"""What each stage trains, on which records, and with which losses."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmdata.errors import UserError
from training.checkpoint.checkpoints import load_weights
from training.config import Generative, Stage, StageName, TrainConfig
from training.data.examples import Batch, Instructions, Pairs
from training.data.loader import PairReader, Reader, RowReader, Share
from training.data.order import Order, mixed
from training.data.records import MAX_IMAGES, Look, open_records
from training.data.release_index import SampleReader, TrainingRelease
from training.data.rows import Layout
from training.data.tensors import MediaSpec
from training.data.tokens import TextCodec
from training.distributed.mesh import Mesh
from training.metrics.retrieval import retrieval_by_kind
from training.model.encoders import DualEncoder, build_encoder, freeze_all_but
from training.model.fusion import FusedLayer, decoder_list
from training.model.llm import add_lora, load_llm
from training.model.lm import MultimodalLm
from training.model.masked import MaskedPrediction
from training.stages.align import AlignStep, pair_losses
from training.stages.generative import GenerativeStep, global_tokens, with_stand_in
from training.stages.pipeline import PipelineStep, is_tied

BEFORE: dict[StageName, StageName] = {"joint": "align", "instruct": "joint"}


@dataclass
class Built:
    """A stage's model, unwrapped, on the CPU.

    Args:
        llm, codec: None in stage `align`.
        blocks: its repeated layers, for sharding and recomputation.
        tied: the LLM reads and writes words with one matrix.
    """

    stage: StageName
    model: DualEncoder | MultimodalLm
    llm: Any
    codec: TextCodec | None
    blocks: list[nn.Module]
    tied: bool = False


def build_model(stage: StageName, config: TrainConfig) -> Built:
    """A stage's model with its first weights; what is frozen is marked so.

    Raises:
        UserError: an unknown model, or weights that cannot be loaded.
    """
    torch.manual_seed(mixed(config.seed, 1))
    encoder = build_encoder(config.model.encoder, config.model.audio)
    if stage == "align":
        return _align_model(encoder, config)
    llm, codec = load_llm(config.model.llm)
    torch.manual_seed(mixed(config.seed, 2))
    model = MultimodalLm(encoder, llm, config.model)
    return Built(stage, model, llm, codec, list(decoder_list(llm)), is_tied(llm))


def _align_model(encoder: DualEncoder, config: TrainConfig) -> Built:
    align = config.align
    if align.loss == "siglip":
        with torch.no_grad():
            encoder.logit_scale.fill_(2.3026)  # log 10, and -10: the paper's own first values
            encoder.logit_bias.fill_(-10.0)
    if align.masked_weight > 0:
        with torch.no_grad():
            size = encoder.vision.preprocess.size
            found = encoder.vision.maps(torch.zeros(1, 3, *size))[-1]
            tokens = encoder.tokenize(["a"])
            width = encoder.text(tokens).shape[1]
        encoder.masked = MaskedPrediction(found.shape[1], (found.shape[-2], found.shape[-1]), width, align.mask_ratio)
    for tower, frozen in ((encoder.vision, align.freeze_image), (encoder.text, align.freeze_text)):
        if frozen:
            freeze_all_but(tower, tower.head_names())
    if not any(p.requires_grad for p in (*encoder.vision.parameters(), *encoder.text.parameters())):
        raise UserError("align: freeze_image and freeze_text leave nothing to train: these towers have no projection")
    blocks = [block for tower in (encoder.vision, encoder.text) for block in _tower_blocks(tower)]
    return Built("align", encoder, None, None, blocks)


def _tower_blocks(tower: nn.Module) -> list[nn.Module]:
    lists = [m for m in tower.modules() if isinstance(m, nn.ModuleList | nn.Sequential) and len(m) > 1]
    same = [m for m in lists if len({type(block) for block in m}) == 1 and any(True for _ in m[0].parameters())]
    return list(max(same, key=len)) if same else []


def take_weights(built: Built, config: TrainConfig, before: Path | None) -> None:
    """Start from the stage before, then freeze what this stage does not train and add its adapters.

    Args:
        before: a checkpoint of the stage before; None: the first weights stay.
    """
    model = built.model
    if isinstance(model, DualEncoder):
        return
    if before is not None:
        parts = ("vision.", "audio.") if built.stage == "joint" else ("",)
        missing = load_weights(before, model, lambda name: name.startswith(parts))
        if missing:
            raise UserError(
                f"{before}: lacks {len(missing)} tensors of this model, such as {missing[0]}. Same [model]?"
            )
    prepare_trained(built, config)


def prepare_trained(built: Built, config: TrainConfig) -> None:
    """Freeze what a generative stage does not train, put its adapters in, and keep the reference for KL."""
    model = built.model
    assert isinstance(model, MultimodalLm)
    stage: Generative = config.joint if built.stage == "joint" else config.instruct
    model.vision.requires_grad_(False)
    if model.audio is not None:
        model.audio.requires_grad_(False)
    if built.stage == "joint" and config.joint.freeze_llm:
        built.llm.requires_grad_(False)
        _learn_gates(built)
    lora = built.stage == "instruct" and config.instruct.method == "lora"
    if stage.kl_weight > 0 and not lora:
        model.keep_reference()
    if lora:
        torch.manual_seed(mixed(config.seed, 3))
        add_lora(built.llm, config.instruct.lora)
        _learn_gates(built)


def _learn_gates(built: Built) -> None:
    """The gated cross-attention belongs to the connector, though it stands inside the LLM."""
    for layer in built.blocks:
        if isinstance(layer, FusedLayer) and layer.cross is not None:
            layer.cross.requires_grad_(True)


def train_mode(model: nn.Module) -> None:
    """Training mode for what is trained; frozen towers, and batch norms, keep to what they have learned."""
    model.train()
    inner: Any = getattr(model, "module", model)
    if isinstance(inner, MultimodalLm):
        for tower in (inner.vision, inner.audio):
            if tower is not None:
                tower.eval()
    for module in inner.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def make_reader(
    built: Built, release: TrainingRelease, config: TrainConfig, split: str, batch_size: int, share: Share
) -> Reader:
    """What reads a stage's batches from one split of a release.

    Raises:
        UserError: the release has no instructions of the form asked for, or the batch does not divide by the ranks.
        DataError: the split has nothing for this stage.
    """
    if batch_size % share.world:
        raise UserError(f"{built.stage}.batch_size {batch_size} is not a multiple of {share.world} data-parallel ranks")
    samples, reader = release.samples(split), SampleReader(release)
    data = config.data
    spec = MediaSpec(
        built.model.vision.preprocess,
        data.frames,
        built.model.audio.samples if built.model.audio is not None else 0,
        data.augment,
    )

    def order(n: int) -> Order:
        return Order(n, mixed(config.seed, 4), data.block, data.window_blocks)

    if isinstance(built.model, DualEncoder):
        pairs = Pairs(samples, reader, spec)
        crop = config.align.crop_scale if split == "train" else 1.0
        return PairReader(pairs, order(len(pairs)), batch_size, share, built.model.tokenize, crop)
    assert built.codec is not None
    stage: Generative = config.joint if built.stage == "joint" else config.instruct
    layout = Layout(
        picture_tokens=built.model.picture_tokens,
        sound_tokens=built.model.sound_tokens,
        pack_length=stage.pack_length,
        max_text_tokens=stage.max_text_tokens,
        packed=stage.pack,
        template=built.stage == "instruct",
    )
    spec = replace(spec, frames=frames_that_fit(data.frames, layout))
    source: Pairs | Instructions
    if built.stage == "joint":
        source = Pairs(samples, reader, spec)
    else:
        look = Look(spec.frames, spec.audio_samples > 0, pictures_that_fit(layout))
        records = open_records(release, config.instruct.form, split, config.instruct.tasks, look)
        source = Instructions(records, samples, reader, spec)
    return RowReader(source, order(len(source)), batch_size, share, built.codec, layout)


def pictures_that_fit(layout: Layout) -> int:
    """Pictures of a record that leave a quarter of a row to words, beside one sound; at least one."""
    if not layout.picture_tokens:
        return MAX_IMAGES
    room = layout.pack_length * 3 // 4 - layout.sound_tokens
    return max(1, min(MAX_IMAGES, room // layout.picture_tokens))


def frames_that_fit(frames: int, layout: Layout) -> int:
    """Frames of a clip that leave half of a row to words, beside the clip's sound; at least one."""
    if not layout.picture_tokens:
        return frames
    room = layout.pack_length // 2 - layout.sound_tokens
    return max(1, min(frames, room // layout.picture_tokens))


def make_step(
    built: Built, wrapped: nn.Module, config: TrainConfig, mesh: Mesh, autocast: Any = nullcontext, scaled: Any = None
) -> Callable[[Batch], dict[str, Tensor]]:
    """Forward and backward of one batch."""
    scaled = scaled or (lambda loss: loss)
    if built.stage == "align":
        return AlignStep(wrapped, config.align, mesh, autocast, scaled)
    stage: Generative = config.joint if built.stage == "joint" else config.instruct
    if mesh.size("pp") > 1:
        assert isinstance(built.model, MultimodalLm)
        return PipelineStep(built.model, stage, mesh, autocast, built.tied)
    return GenerativeStep(wrapped, stage, mesh, autocast, scaled)


@torch.no_grad()
def validate(
    built: Built,
    wrapped: nn.Module,
    batches: list[Batch],
    config: TrainConfig,
    mesh: Mesh,
    autocast: Any = nullcontext,
    step: Any = None,
) -> dict[str, float]:
    """Held-out metrics, the same on all ranks: `val/loss`, and Recall@K or perplexity.

    Args:
        batches: this rank's shares of the same batches that the other ranks have.
        step: the training step, which a pipeline needs for its forward pass.
    """
    wrapped.eval()
    if built.stage == "align":
        return _validate_pairs(wrapped, batches, config, mesh, autocast)
    stage: Generative = config.joint if built.stage == "joint" else config.instruct
    sums = torch.zeros(2, dtype=torch.float64, device=mesh.device)
    for batch in batches:
        if isinstance(step, PipelineStep):
            sums += torch.stack([one.double() for one in step.validate(batch)])
            continue
        tokens = global_tokens(batch, mesh)
        with autocast():
            found = wrapped(with_stand_in(batch, wrapped), False, stage.chunked_loss)
        sums += torch.stack([mesh.sum(found["loss"].detach().double()), tokens.double()])
    loss = float(sums[0] / sums[1])
    return {"val/loss": loss, "val/perplexity": float(torch.tensor(loss).exp()), "val/tokens": float(sums[1])}


def _validate_pairs(
    wrapped: nn.Module, batches: list[Batch], config: TrainConfig, mesh: Mesh, autocast: Any
) -> dict[str, float]:
    from training.model.losses import gather

    total, weight = torch.zeros((), dtype=torch.float64), 0
    kept: dict[str, list[Tensor]] = {"text": [], "visual": [], "audio": [], "group": []}
    for batch in batches:
        with autocast():
            found = wrapped(batch)
        shares = pair_losses(found, batch, config.align, mesh)
        share = torch.stack([config.align.weights[name] * loss for name, loss in shares.items()]).sum()
        total += mesh.sum(share.detach().double()).cpu() * len(batch["weight"])
        weight += len(batch["weight"])
        real = gather(batch["weight"], mesh.dp_group) > 0
        for name in ("text", "visual", "audio"):
            if name in found:
                kept[name].append(gather(found[name], mesh.dp_group)[real].cpu())
        kept["group"].append(gather(batch["group"], mesh.dp_group)[real].cpu())
    text, visual, group = (torch.cat(kept[name]) for name in ("text", "visual", "group"))
    scores = retrieval_by_kind(text, visual, torch.cat(kept["audio"]) if kept["audio"] else None, group)
    both = {"val/loss": float(total / weight), **{f"val/{name}": value for name, value in scores.items()}}
    first = [value for name, value in scores.items() if name.endswith("/recall@1")]
    return {**both, "val/recall@1": sum(first) / max(1, len(first))}


def stage_settings(stage: StageName, config: TrainConfig) -> Stage:
    """The configuration's section of a stage."""
    return {"align": config.align, "joint": config.joint, "instruct": config.instruct}[stage]
