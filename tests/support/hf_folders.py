"""Folders of tiny random models of transformers, saved as a user's own: model, tokenizer, processor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
VISION = {**SMALL, "image_size": 32, "patch_size": 8}
TEXTS = ["a photo of a cat", "Two small dogs sit in the grass.", "猫 on a mat, 3 times!"]
WORDS = ["What is this? A picture of a dog, and a cat.", "user assistant system USER ASSISTANT Assistant User", *TEXTS]


def tokenizer(
    vocab: int = 400, *, template: str | None = None, ends: bool = False, special: tuple[str, ...] = ()
) -> Any:
    """A byte-level BPE tokenizer. Args: ends: whether `<s>` and `</s>` are put around each text, as CLIP's does."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    names = ["<pad>", "<s>", "</s>", *special]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab, special_tokens=names, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(WORDS, trainer)
    if ends:
        bpe.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
        )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token="<pad>", bos_token="<s>", eos_token="</s>", extra_special_tokens=list(special)
    )
    fast.chat_template = template
    return fast


def siglip2_tokenizer() -> Any:
    """Letters, as the class that transformers takes for SigLIP2."""
    from transformers import Siglip2Tokenizer

    letters = sorted({letter for text in WORDS for letter in text.lower()} - {" "})
    names = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *letters]
    return Siglip2Tokenizer(vocab={name: number for number, name in enumerate(names)}, merges=[])


def save_dual(kind: str, folder: Path) -> Any:
    """A CLIP, SigLIP or SigLIP2 folder, whose scalars are not those of a new model; and its model."""
    import transformers as hf

    words = siglip2_tokenizer() if kind == "siglip2" else tokenizer(ends=True)
    text = {**SMALL, "vocab_size": len(words), "max_position_embeddings": 16, "eos_token_id": 2, "pad_token_id": 0}
    torch.manual_seed(0)
    processor: Any
    if kind == "clip":
        config = hf.CLIPConfig(text_config={**text, "projection_dim": 24}, vision_config=VISION, projection_dim=24)
        model: Any = hf.CLIPModel(config)
        sizes = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
        processor = hf.CLIPProcessor(hf.CLIPImageProcessor(**sizes), words)
    elif kind == "siglip":
        config = hf.SiglipConfig(text_config={**text, "projection_size": 32}, vision_config=VISION)
        model = hf.SiglipModel(config)
        processor = hf.SiglipProcessor(hf.SiglipImageProcessor(size={"height": 32, "width": 32}), words)
    else:
        patches = {**SMALL, "patch_size": 8, "num_patches": 16}
        config = hf.Siglip2Config(text_config={**text, "projection_size": 32}, vision_config=patches)
        model = hf.Siglip2Model(config)
        processor = hf.Siglip2Processor(hf.Siglip2ImageProcessor(patch_size=8, max_num_patches=16), words)
    with torch.no_grad():
        model.logit_scale.fill_(2.5)
        if kind != "clip":
            model.logit_bias.fill_(-7.5)
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.1)
            elif "bias" in name and name != "logit_bias":
                parameter.normal_(0, 0.05)
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return model


LLM = {**SMALL, "num_key_value_heads": 2, "vocab_size": 420, "max_position_embeddings": 256}
LLAVA_TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() + ': ' }}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\\n' }}{% endfor %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}{{ part['text'] + ' ' }}{% endfor %}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
"""As LLaVA 1.5's: it loses a text that is not in a list of parts."""


def vision_language_config(kind: str, tied: bool = False) -> Any:
    import transformers as hf

    llama, qwen2 = {"model_type": "llama", **LLM}, {"model_type": "qwen2", **LLM}
    clip, siglip = {"model_type": "clip_vision_model", **VISION}, {"model_type": "siglip_vision_model", **VISION}
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
    qwen = {**LLM, "rope_parameters": rope, "bos_token_id": 1, "eos_token_id": 2}
    tie, image = {"tie_word_embeddings": tied}, {"image_token_index": 3}
    if kind in ("idefics3", "smolvlm"):
        settings = {"text_config": {**llama, **tie}, "vision_config": VISION, "scale_factor": 2, "image_token_id": 3}
        return (hf.Idefics3Config if kind == "idefics3" else hf.SmolVLMConfig)(**settings, **tie)
    if kind == "llava":
        return hf.LlavaConfig(text_config={**qwen2, **tie}, vision_config=clip, **image, **tie)
    if kind == "llava_next":
        pinpoints = [[64, 64]]
        settings = {"text_config": llama, "vision_config": clip, "image_grid_pinpoints": pinpoints}
        return hf.LlavaNextConfig(**settings, **image, **tie)
    if kind == "llava_onevision":
        return hf.LlavaOnevisionConfig(text_config=qwen2, vision_config=siglip, **image, **tie)
    if kind == "qwen2_vl":
        seen = {"depth": 1, "embed_dim": 32, "hidden_size": 32, "num_heads": 2}
        return hf.Qwen2VLConfig(text_config=qwen, vision_config=seen, **tie)
    seen = {"depth": 1, "hidden_size": 32, "out_hidden_size": 32, "num_heads": 2, "intermediate_size": 48}
    return hf.Qwen2_5_VLConfig(text_config=qwen, vision_config=seen, **tie)


def save_vision_language(kind: str, folder: Path, tied: bool = False) -> Any:
    """A folder of a vision-language model with its tokenizer; and the model."""
    from transformers import AutoModelForImageTextToText

    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(vision_language_config(kind, tied)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(1.0 if parameter.ndim == 1 else 0.0, 0.1)
    model.save_pretrained(folder)
    tokenizer(template=LLAVA_TEMPLATE, special=("<image>",)).save_pretrained(folder)
    return model


def save_llava(folder: Path, tower: str = "clip", **settings: Any) -> Any:
    """A whole LLaVA folder with its processor; and the model. Args: settings: of its LlavaConfig."""
    import transformers as hf

    words = tokenizer(template=LLAVA_TEMPLATE, special=("<image>",))
    seen = {"model_type": f"{tower}_vision_model", **VISION}
    strategy = {"vision_feature_select_strategy": "default" if tower == "clip" else "full"}
    more = {"image_token_index": 3, **strategy, **settings}
    config = hf.LlavaConfig(vision_config=seen, text_config={"model_type": "qwen2", **LLM}, **more)
    torch.manual_seed(0)
    model: Any = hf.LlavaForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(1.0 if parameter.ndim == 1 else 0.0, 0.15)
    if tower == "clip":
        pictures: Any = hf.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    else:
        pictures = hf.SiglipImageProcessor(size={"height": 32, "width": 32})
    counted = {"patch_size": 8, "num_additional_image_tokens": int(tower == "clip"), **strategy}
    model.save_pretrained(folder)
    hf.LlavaProcessor(pictures, words, chat_template=LLAVA_TEMPLATE, **counted).save_pretrained(folder)
    return model
