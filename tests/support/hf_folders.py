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
