"""The language model inside a vision-language model of transformers, as a causal language model of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

VISION_LANGUAGE_TYPES = (
    "idefics3",
    "smolvlm",
    "llava",
    "llava_next",
    "llava_onevision",
    "qwen2_vl",
    "qwen2_5_vl",
)
"""Kinds of vision-language models, as `model_type` in config.json names them."""

# Qwen2-VL's rotary embedding has three positions for each token; for text all three are equal, and it is Qwen2's.
_PLAIN_TYPES = {"qwen2_vl_text": "qwen2", "qwen2_5_vl_text": "qwen2"}


def load_vision_language(name: str) -> Any | None:
    """A vision-language model, in fp32 on the CPU; None if the folder or hub id is of another kind.

    Raises what transformers raises if it cannot be loaded.
    """
    from transformers import AutoConfig, AutoModelForImageTextToText

    if AutoConfig.from_pretrained(name, trust_remote_code=False).model_type not in VISION_LANGUAGE_TYPES:
        return None
    return AutoModelForImageTextToText.from_pretrained(name, dtype="float32", trust_remote_code=False)


def inner_llm(model: Any, **options: Any) -> Any:
    """The language model in a vision-language model, with its weights.

    Args: options: of `AutoModelForCausalLM.from_config`.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = model.config.get_text_config().to_dict()
    settings["model_type"] = _PLAIN_TYPES.get(settings["model_type"], settings["model_type"])
    settings["tie_word_embeddings"] = bool(model.config.tie_word_embeddings)
    if "mrope_section" in (settings.get("rope_parameters") or {}):
        settings["rope_parameters"] = {k: v for k, v in settings["rope_parameters"].items() if k != "mrope_section"}
    llm = AutoModelForCausalLM.from_config(AutoConfig.for_model(**settings), dtype=torch.float32, **options)
    llm.base_model.load_state_dict(model.get_decoder().state_dict())
    llm.get_output_embeddings().load_state_dict(model.get_output_embeddings().state_dict())
    llm.generation_config = model.generation_config
    return llm


def processor_template(name: str) -> str | None:
    """The chat template of a processor, which older folders keep apart from the tokenizer; None without one."""
    from transformers.utils import cached_file

    missing = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    path = cached_file(name, "chat_template.json", **missing)
    return None if path is None else str(json.loads(Path(path).read_text(encoding="utf-8"))["chat_template"])
