"""The model of each stage: how it is built, which weights it starts from, and what of it is trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmdata.errors import DataError, UserError
from training.checkpoint.checkpoints import find_checkpoint, load_weights, read_progress
from training.config import Generative, Stage, StageName, TrainConfig
from training.data.order import derived_seed
from training.data.text_codec import TextCodec
from training.model.encoders import DualEncoder, build_encoder
from training.model.fusion import FusedLayer, decoder_list
from training.model.llava_start import load_llava
from training.model.llm import add_lora, is_tied, load_llm
from training.model.masked_prediction import MaskedPrediction
from training.model.multimodal_lm import MultimodalLm

PREVIOUS_STAGE: dict[StageName, StageName] = {"joint": "align", "instruct": "joint"}
SIGLIP_SCALE, SIGLIP_BIAS = 2.3026, -10.0  # log 10 and -10: the first values in the paper (Zhai et al. 2023)


@dataclass
class StageModel:
    """A stage's model, not wrapped, on the CPU."""

    stage: StageName
    model: DualEncoder | MultimodalLm
    llm: Any  # None in stage `align`
    codec: TextCodec | None  # None in stage `align`
    blocks: list[nn.Module]  # its repeated layers, which are sharded and recomputed one by one
    tied: bool = False  # whether the LLM's input and output embeddings are one matrix

    def generative(self) -> tuple[MultimodalLm, TextCodec]:
        """The model and the codec of stages `joint` and `instruct`."""
        assert isinstance(self.model, MultimodalLm)
        assert self.codec is not None
        return self.model, self.codec


def stage_settings(stage: StageName, config: TrainConfig) -> Stage:
    """The configuration's section of a stage."""
    return config.align if stage == "align" else generative_settings(stage, config)


def generative_settings(stage: StageName, config: TrainConfig) -> Generative:
    """The configuration's section of a stage that trains the language model."""
    return config.joint if stage == "joint" else config.instruct


def build_model(stage: StageName, config: TrainConfig) -> StageModel:
    """A stage's model with its initial weights.

    Raises UserError: an unknown model, or weights that cannot be loaded.
    """
    torch.manual_seed(derived_seed(config.seed, 1))
    if config.model.llava is not None:
        return _llava_model(stage, config)
    encoder = build_encoder(config.model.encoder, config.model.audio)
    if stage == "align":
        return _align_model(encoder, config)
    llm, codec = load_llm(config.model.llm)
    torch.manual_seed(derived_seed(config.seed, 2))
    model = MultimodalLm(encoder, llm, config.model)
    return StageModel(stage, model, llm, codec, list(decoder_list(llm)), is_tied(llm))


def _llava_model(stage: StageName, config: TrainConfig) -> StageModel:
    if stage == "align":
        raise UserError(
            "model.llava: a LLaVA model has no text tower, so there is nothing to align. "
            "Remedy: --stage instruct, or --stage joint."
        )
    start = load_llava(config.model)
    torch.manual_seed(derived_seed(config.seed, 2))
    model = MultimodalLm(start.encoder, start.llm, start.settings)
    model.connector.projectors[0].load_state_dict(start.projector)
    return StageModel(stage, model, start.llm, start.codec, list(decoder_list(start.llm)), is_tied(start.llm))


@torch.no_grad()
def _align_model(encoder: DualEncoder, config: TrainConfig) -> StageModel:
    """The towers of stage 1, with what stage 1 adds to them, and with the frozen parts marked."""
    align = config.align
    if "bce" in align.pair_losses:
        encoder.add_matching(SIGLIP_SCALE)
    if "siglip" in align.pair_losses and not encoder.logit_bias.any():  # a trained SigLIP keeps its own
        encoder.logit_scale.fill_(SIGLIP_SCALE)
        encoder.logit_bias.fill_(SIGLIP_BIAS)
    if align.masked_weights:
        if "sound" in align.masked_weights and encoder.audio is None:
            raise UserError(
                "align.masked_sound_weight: the model has no sound tower. Remedy: model.audio.kind, or a weight of 0."
            )
        encoder.masked = MaskedPrediction(encoder, list(align.masked_weights), align.mask_ratio, align.mask_text_ratio)
    for tower, frozen in ((encoder.vision, align.freeze_image), (encoder.text, align.freeze_text)):
        if frozen:
            tower.freeze_body()
    if not any(p.requires_grad for p in (*encoder.vision.parameters(), *encoder.text.parameters())):
        raise UserError(
            "align: freeze_image and freeze_text leave nothing to train: these towers have no projection. "
            "Remedy: leave one of them out."
        )
    blocks = [block for tower in (encoder.vision, encoder.text) for block in _tower_blocks(tower)]
    return StageModel("align", encoder, None, None, blocks)


def _tower_blocks(tower: nn.Module) -> list[nn.Module]:
    """The longest list of layers of one type with parameters."""
    lists = [m for m in tower.modules() if isinstance(m, nn.ModuleList | nn.Sequential) and len(m) > 1]
    uniform = [m for m in lists if len({type(block) for block in m}) == 1 and any(True for _ in m[0].parameters())]
    return list(max(uniform, key=len)) if uniform else []


def initialise_weights(built: StageModel, config: TrainConfig, checkpoint: Path | None) -> None:
    """Load the weights of the stage before, then freeze what this stage does not train and add its adapters.

    Args: checkpoint: of the stage before; None: the initial weights stay.
    Raises UserError: the checkpoint lacks weights of this model.
    """
    if isinstance(built.model, DualEncoder):
        return
    if checkpoint is not None:
        prefixes = ("vision.", "audio.") if built.stage == "joint" else ("",)
        if missing := load_weights(checkpoint, built.model, lambda name: name.startswith(prefixes)):
            raise UserError(
                f"{checkpoint}: lacks {len(missing)} tensors of this model, such as {missing[0]}. "
                "Remedy: the [model] settings that the checkpoint was trained with."
            )
    freeze_and_adapt(built, config)


def freeze_and_adapt(built: StageModel, config: TrainConfig) -> None:
    """Freeze what a generative stage does not train, and add its adapters."""
    model = built.model
    assert isinstance(model, MultimodalLm)
    model.vision.requires_grad_(False)
    if model.audio is not None:
        model.audio.requires_grad_(False)
    if built.stage == "joint" and config.joint.freeze_llm:
        built.llm.requires_grad_(False)
        _train_cross_attention(built)
    lora = built.stage == "instruct" and config.instruct.method == "lora"
    if lora:
        torch.manual_seed(derived_seed(config.seed, 3))
        add_lora(built.llm, config.instruct.lora)
        _train_cross_attention(built)


def keep_reference(built: StageModel, config: TrainConfig, device: torch.device, dtype: torch.dtype) -> None:
    """Keep a copy of the language model for the KL term, in the type that training computes in.

    With adapters the model itself is the reference, with the adapters off.
    """
    if not isinstance(built.model, MultimodalLm) or (built.stage == "instruct" and config.instruct.method == "lora"):
        return
    if generative_settings(built.stage, config).kl_weight > 0:
        built.model.keep_reference(device, dtype)


def _train_cross_attention(built: StageModel) -> None:
    """Gated cross-attention is trained like the connector, although its modules are inside the frozen LLM."""
    for layer in built.blocks:
        if isinstance(layer, FusedLayer) and layer.cross is not None:
            layer.cross.requires_grad_(True)


def load_model(checkpoint: Path) -> tuple[StageModel, TrainConfig]:
    """Build the model of a checkpoint with its trained weights, on the CPU and in evaluation mode.

    Args: checkpoint: a checkpoint's folder, or the folder of a stage.
    Raises UserError: there is no checkpoint; DataError: the checkpoint is broken.
    """
    folder = find_checkpoint(checkpoint)
    progress = read_progress(folder)
    config = TrainConfig.model_validate(progress.config)
    built = build_model(progress.stage, config)
    initialise_weights(built, config, None)
    # The decoders of masked prediction are for training only, and older checkpoints have others.
    if missing := load_weights(folder, built.model, lambda name: not name.startswith("masked.")):
        raise DataError(
            f"{folder}: {len(missing)} tensors of the model are missing, such as {missing[0]}. "
            "Remedy: use an older checkpoint."
        )
    built.model.eval()
    return built, config


def train_mode(model: nn.Module) -> None:
    """Training mode for what is trained; frozen towers and all batch norms stay in evaluation mode."""
    model.train()
    inner: Any = getattr(model, "module", model)
    if isinstance(inner, MultimodalLm):
        for tower in (inner.vision, inner.audio):
            if tower is not None:
                tower.eval()
    else:
        for tower in (inner.vision, inner.text):
            if tower.body_frozen:
                for name, module in tower.named_modules():
                    module.training = tower.is_of_head(name)
    for module in inner.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
