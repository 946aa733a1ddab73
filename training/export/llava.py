"""Writes a model as LLaVA: for `AutoModelForImageTextToText`, `AutoProcessor`, and servers that load such folders."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from mmdata.errors import UserError
from training.evaluate.answer import question_batch
from training.export.clip_vision import clip_vision_model
from training.export.exported import quiet
from training.export.llava_processor import chat_template, picture_processor, with_image_token
from training.model.fusion import Projector
from training.model.llava_start import STRATEGIES
from training.model.multimodal_lm import MultimodalLm
from training.model.towers import HfVision, OpenClipVision
from training.stages.stage_model import StageModel

QUESTION = "What is this? 猫是什么"
"""What both models are asked, to compare them."""

MOST_DIFFERENCE = 1e-3
"""Of logits, as a share of the largest."""


def check_llava(model: MultimodalLm) -> Any:
    """The image tower as transformers has it. Raises UserError if LLaVA's architecture cannot express the model."""
    settings = model.settings
    width = settings.connector_width or model.dim
    problems = {
        "architecture `cross_attention` reads pictures from outside the sequence. Remedy: train with "
        "model.architecture = single_tower": not model.in_sequence,
        f"fusion `{settings.fusion}` is not LLaVA's. Remedy: train with model.fusion = early": (
            settings.fusion != "early"
        ),
        "picture_features `embedding` is one vector, and LLaVA reads patches. Remedy: train with "
        "model.picture_features = map": settings.picture_features != "map",
        "the projector has a layer norm. Remedy: train with model.projector = mlp": settings.projector == "norm_mlp",
        f"the projector is {width} wide, and LLaVA's as wide as the language model, {model.dim}. Remedy: train with "
        "model.connector_width = null": settings.projector == "mlp" and width > model.dim,
        "it has a sound tower. Remedy: train with model.audio.kind = none": model.audio is not None,
        "the language model was trained with a sliding window. Remedy: train without model.llm.sliding_window": (
            settings.llm.sliding_window is not None
        ),
        "the language model's output head has a bias. Remedy: train another model.llm": (
            model.llm.get_output_embeddings().bias is not None
        ),
    }
    for problem, is_there in problems.items():
        if is_there:
            raise UserError(f"export as LLaVA: {problem}.")
    return _vision_model(model)


def _vision_model(model: MultimodalLm) -> Any:
    vision = model.vision
    if isinstance(vision, OpenClipVision):
        tower, found = clip_vision_model(vision), getattr(vision.visual, "trunk", vision.visual)
    else:
        found = cast(Any, vision.model)
        tower = found if found.config.model_type in STRATEGIES else None
    if tower is None:
        raise UserError(
            f"export as LLaVA: the image tower is a {type(found).__name__}, and no ViT as CLIP's or SigLIP's. Remedy: "
            "train with a folder of CLIP or SigLIP (kind `hf`) or a ViT of open_clip as model.encoder."
        )
    is_normed = isinstance(vision, HfVision) and tower.config.model_type == "siglip_vision_model"
    if is_normed and model.settings.picture_layer == -1:
        raise UserError(
            "export as LLaVA: the last feature map of this image tower is normalised, and LLaVA's is not. "
            "Remedy: train with model.picture_layer = -2, or with the whole SigLIP folder as model.encoder.model."
        )
    return tower


@torch.no_grad()
def write_llava(built: StageModel, folder: Path) -> float:
    """Write a model as LlavaForConditionalGeneration with its processor, and compare the folder with the model.

    Args: built: with its adapters merged, on the CPU.
    Returns: The largest difference of logits for a question about a picture, as a share of the largest logit.
    Raises UserError: LLaVA's architecture cannot express the model, or transformers reads the folder in another way.
    """
    from transformers import LlavaProcessor

    model, codec = built.generative()
    tower = check_llava(model)
    pictures = picture_processor(model.vision.preprocess)
    tokenizer, image_token, is_new = with_image_token(codec.tokenizer)
    tokenizer.chat_template = chat_template(codec, built.stage)
    strategy = STRATEGIES[tower.config.model_type]
    processor = LlavaProcessor(
        pictures,
        tokenizer,
        patch_size=tower.config.patch_size,
        vision_feature_select_strategy=strategy,
        chat_template=tokenizer.chat_template,
        num_additional_image_tokens=int(strategy == "default"),  # the class token, which is then left out
    )
    words, head = model.llm.get_input_embeddings().weight, model.llm.get_output_embeddings().weight
    if is_new:
        words, head = (_with_row(weight, image_token, len(codec.tokenizer)) for weight in (words, head))
    with quiet():
        _build(built, tower, image_token, words, head).save_pretrained(folder)
        processor.save_pretrained(folder)
    return _compare(built, folder, image_token)


def _build(built: StageModel, tower: Any, image_token: int, words_VD: Tensor, head_VD: Tensor) -> Any:
    """The model. Args: words_VD, head_VD: input and output embeddings, with a row for the image token."""
    from transformers import GenerationConfig, LlavaConfig, LlavaForConditionalGeneration

    model, codec = built.generative()
    projector = model.connector.projectors[0]
    assert isinstance(projector, Projector)
    text_config = copy.deepcopy(model.llm.config)
    if hasattr(text_config, "quantization_config"):  # from a GGUF file; the tensors are no longer quantised
        del text_config.quantization_config
    text_config.vocab_size = len(words_VD)
    config = LlavaConfig(
        vision_config=tower.config,
        text_config=text_config,
        image_token_index=image_token,
        image_seq_length=model.picture_tokens,
        projector_hidden_act="linear" if projector.up is None else "gelu",
        vision_feature_select_strategy=STRATEGIES[tower.config.model_type],
        vision_feature_layer=model.settings.picture_layer,
        tie_word_embeddings=built.tied,
    )
    llava = LlavaForConditionalGeneration(config).float().eval()
    parts: Any = llava.model
    parts.vision_tower.load_state_dict(tower.state_dict())
    parts.multi_modal_projector.load_state_dict(_projector_state(projector, model.dim))
    base, embeddings = model.llm.base_model, model.llm.get_input_embeddings()
    name = next(name for name, module in base.named_modules() if module is embeddings)
    parts.language_model.load_state_dict({**base.state_dict(), f"{name}.weight": words_VD})
    llava.get_output_embeddings().weight.copy_(head_VD)
    llava.generation_config = GenerationConfig(
        eos_token_id=sorted(codec.ends), pad_token_id=codec.pad, bos_token_id=codec.start
    )
    return llava


def _with_row(weight_VD: Tensor, row: int, used: int) -> Tensor:
    """Embeddings with a row for the image token: the mean of the rows in use.

    As a row of the output head it gives the mean of all logits, so the image token is never the likeliest.
    """
    mean_D = weight_VD[:used].mean(0)
    missing = max(0, row + 1 - len(weight_VD))
    weight_VD = torch.cat([weight_VD, mean_D.expand(missing, -1)])
    weight_VD[row] = mean_D
    return weight_VD


def _projector_state(projector: Projector, dim: int) -> dict[str, Tensor]:
    """LLaVA's two layers: a narrower one is filled up with zeros, and after a single layer comes the identity."""
    down = projector.down
    if projector.up is None:
        first, second, bias = down, torch.eye(dim), torch.zeros(dim)
    else:
        missing = dim - projector.up.out_features
        first, second, bias = projector.up, F.pad(down.weight, (0, missing)), down.bias
    missing = dim - first.out_features
    return {
        "linear_1.weight": F.pad(first.weight, (0, 0, 0, missing)),
        "linear_1.bias": F.pad(first.bias, (0, missing)),
        "linear_2.weight": second,
        "linear_2.bias": bias,
    }


def _compare(built: StageModel, folder: Path, image_token: int) -> float:
    """See `write_llava`."""
    from PIL import Image
    from transformers import AutoModelForImageTextToText

    model, codec = built.generative()
    height, width = model.vision.preprocess.size
    pixels = (torch.arange(3 * height * width) * 97 % 251).byte().reshape(1, 3, height, width)
    question = QUESTION if built.stage == "instruct" else ""
    batch = question_batch(built, pixels, question)
    wanted = batch.input_ids[0].clone()
    start = int(batch.picture.start[0])
    wanted[start : start + model.picture_tokens] = image_token
    picture = Image.fromarray(pixels[0].permute(1, 2, 0).numpy())
    content: list[dict[str, Any]] = [{"type": "image", "image": picture}]
    content += [{"type": "text", "text": question}] if question else []
    with quiet():
        inputs = _read_prompt(folder, content)
        if inputs is None or inputs["input_ids"][0].tolist() != wanted.tolist():
            raise UserError(
                f"export as LLaVA: AutoProcessor does not write the prompts that the model was trained with, with this "
                f"tokenizer ({type(codec.tokenizer).__name__}). Remedy: train with model.llm.tokenizer, a folder with "
                "a tokenizer.json."
            )
        llava = AutoModelForImageTextToText.from_pretrained(
            folder, dtype="float32", local_files_only=True, trust_remote_code=False
        )
    theirs = llava(**inputs).logits[0]
    ours = model.llm.get_output_embeddings()(model.hidden(model.llm, model.embed(batch), batch))[0]
    vocabulary = min(ours.shape[1], len(codec.tokenizer))
    difference = (theirs[:, :vocabulary] - ours[:, :vocabulary]).abs().max() / ours.abs().max()
    if not float(difference) <= MOST_DIFFERENCE:
        raise UserError(
            f"export as LLaVA: with these weights LlavaForConditionalGeneration gives other logits than "
            f"{type(model.llm).__name__} with ours (they differ by {float(difference):.1%}). "
            "Remedy: train another model.llm, such as a Llama or a Qwen2."
        )
    return float(difference)


def _read_prompt(folder: Path, content: list[dict[str, Any]]) -> Any | None:
    """The inputs that the folder's processor makes of a question; None if it cannot be read."""
    from transformers import AutoProcessor

    try:
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, ImportError):
        return None
    options = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
    return processor.apply_chat_template([{"role": "user", "content": content}], **options)
