"""A LLaVA model of transformers as a start: its image tower, projector and language model in their places here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmdata.errors import UserError, first_line
from mmdata.score.hf_dual_encoder import tower_preprocess
from mmdata.score.safe_loading import UNSAFE_WEIGHTS_ERRORS
from training.data.text_codec import TextCodec
from training.model.encoders import DualEncoder, pictures_only
from training.model.hf_dual_towers import HfDualVision
from training.model.llm import codec_of_folder, stop_at_ends
from training.model.vision_language import inner_llm, load_vision_language
from training.model_config import Model

STRATEGIES = {"clip_vision_model": "default", "siglip_vision_model": "full"}
"""Image towers by `model_type`, and the `vision_feature_select_strategy` that reads all patches and no class token."""

ACTIVATIONS = {"gelu": "mlp", "linear": "linear"}
"""The projector's `projector_hidden_act`, and what `model.projector` calls such a projector."""


@dataclass(frozen=True, slots=True)
class LlavaStart:
    """The parts of a LLaVA model, in fp32 on the CPU."""

    encoder: DualEncoder  # without a text tower
    llm: Any
    codec: TextCodec
    settings: Model  # the configuration's, with what the folder says of the projector and of the layer that it reads
    projector: dict[str, Tensor]  # weights of `fusion.Projector`


def load_llava(settings: Model) -> LlavaStart:
    """Read the folder or hub id that `settings.llava` names.

    Raises UserError: it cannot be loaded, or is of another architecture; the error names what is there, and what loads.
    """
    from transformers import AutoImageProcessor

    name = settings.llava
    assert name is not None
    try:
        model = load_vision_language(name)
        processor = AutoImageProcessor.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError, *UNSAFE_WEIGHTS_ERRORS) as error:
        raise UserError(
            f"model.llava: {name} cannot be loaded: {first_line(error)}. "
            "Remedy: a folder or hub id of a LLaVA model, with its preprocessor_config.json."
        ) from error
    if model is None or model.config.model_type != "llava":
        found = "no vision-language model" if model is None else f"a model of type `{model.config.model_type}`"
        raise UserError(
            f"model.llava: {name} is {found} that mmdata knows whole; a start is of type `llava` "
            "(LlavaForConditionalGeneration). Remedy: such a folder, or take its language model alone: model.llm.model."
        )
    config = model.config
    _check_reads_all_patches(name, config)
    parts = model.model
    preprocess = tower_preprocess(name, "model.llava", processor, config.vision_config)
    vision = HfDualVision(parts.vision_tower, None, preprocess)
    layer = config.vision_feature_layer
    layers = config.vision_config.num_hidden_layers
    read = {
        "projector": ACTIVATIONS[config.projector_hidden_act],
        "picture_layer": layer if layer < 0 else layer - layers - 1,
    }
    llm = inner_llm(model)
    codec = codec_of_folder(settings.llm, name, True)
    stop_at_ends(llm, codec)
    projector = _projector_weights(parts.multi_modal_projector, config.projector_hidden_act)
    return LlavaStart(pictures_only(vision), llm, codec, settings.model_copy(update=read), projector)


def _check_reads_all_patches(name: str, config: Any) -> None:
    """Raise UserError if the picture features are not all patches of one layer, through a projector that is known."""
    tower = config.vision_config.model_type
    wanted = {
        "vision_config.model_type": (tower, tuple(STRATEGIES)),
        "vision_feature_select_strategy": (config.vision_feature_select_strategy, (STRATEGIES.get(tower),)),
        "projector_hidden_act": (config.projector_hidden_act, tuple(ACTIVATIONS)),
    }
    for key, (value, known) in wanted.items():
        if value not in known:
            raise UserError(
                f"model.llava: {name}: {key} is `{value}`; what loads is {' or '.join(map(str, known))}. "
                "Remedy: another LLaVA model, or take the language model alone: model.llm.model."
            )
    if not isinstance(config.vision_feature_layer, int):
        raise UserError(
            f"model.llava: {name}: vision_feature_layer is {config.vision_feature_layer}; features of one layer load. "
            "Remedy: another LLaVA model, or take the language model alone: model.llm.model."
        )


@torch.no_grad()
def _projector_weights(projector: Any, act: str) -> dict[str, Tensor]:
    """LLaVA's two linear layers under the names here; without an activation between them they are one."""
    layers = (projector.linear_1, projector.linear_2)
    (up, up_bias), (down, down_bias) = (
        (layer.weight, layer.weight.new_zeros(len(layer.weight)) if layer.bias is None else layer.bias)
        for layer in layers
    )
    if act == "linear":
        return {"down.weight": down @ up, "down.bias": down @ up_bias + down_bias}
    return {"up.weight": up, "up.bias": up_bias, "down.weight": down, "down.bias": down_bias}
