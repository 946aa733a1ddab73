"""Captioners for tests: tiny models of transformers with random weights, and functions that stand for a model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mmdata.config import Recaption
from mmdata.publish.verify import verify_release
from mmdata.score.captioner import TOO_LONG, Answer
from mmdata.score.stage import score_part
from tests.support import workspaces
from tests.support.scoring import save_model
from tests.support.workspaces import Built

WORDS = "a photo of cat dog red green house near the water two small big describe this picture in one sentence . user"
SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION = {**SIZES, "image_size": 32, "patch_size": 16, "projection_dim": 16}

asked: list[tuple[bytes, str | None]] = []
"""Every picture and prompt that a captioner of `by_hash` was given."""


class ByHash:
    """Names one of a few things by a hash of picture and prompt; some pictures make it talk without an end."""

    def __init__(self, settings: Recaption) -> None:
        self.name, self.fingerprint = str(settings.model), "1"

    def answers(self, pictures: Sequence[bytes], prompts: Sequence[str | None]) -> list[Answer]:
        asked.extend(zip(pictures, prompts, strict=True))
        pairs = zip(pictures, prompts, strict=True)
        return [self._answer(hashlib.sha256(picture + (prompt or "").encode()).digest()) for picture, prompt in pairs]

    @staticmethod
    def _answer(bits: bytes) -> Answer:
        if bits[0] < 32:
            return Answer("a picture of a picture of a picture", TOO_LONG)
        if bits[0] < 64:
            return Answer(" .\n")
        things = ("red house", "small dog", "green field", "boat on the water")
        return Answer(f"a photo of a {things[bits[1] % 4]}\nnumber {bits[2]}")


by_hash = ByHash

PART = "web-000000"


def captioned_at(root: Path, numbers: Sequence[int] = (*range(24), *range(1000, 1006)), **sections: Any) -> Built:
    """A verified release of numbered pictures, scored by tiny towers and captioned by `by_hash`."""
    scorer = save_model(root / "scorer", seed=1)
    base = {
        "score": {"model": f"local-dir:{scorer}", "device": "cpu", "batch_size": 8, "threads": 1},
        "recaption": {"model": "one", "captioner": "tests.support.captioning:by_hash"},
    }
    merged = {name: {**base.get(name, {}), **section} for name, section in sections.items()}
    built = workspaces.build(str(root / "workspace"), {PART: numbers}, **{**base, **merged})
    score_part(built.corpus, built.workspace, PART)
    release = workspaces.release(built)
    verify_release(str(built.workspace.release_dir(release)))
    return built


def save_blip(folder: Path) -> Path:
    """A BLIP with random weights."""
    from transformers import BertTokenizer, BlipConfig, BlipForConditionalGeneration, BlipImageProcessor, BlipProcessor

    folder.mkdir(parents=True)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[BOS]", *WORDS.split()]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    tokenizer = BertTokenizer(vocab=str(folder / "vocab.txt"))
    BlipProcessor(BlipImageProcessor(size={"height": 32, "width": 32}), tokenizer).save_pretrained(folder)
    tokens = {"pad_token_id": 0, "eos_token_id": 2, "sep_token_id": 3, "bos_token_id": 5}
    text = {**SIZES, **tokens, "vocab_size": len(vocabulary), "encoder_hidden_size": 32, "max_position_embeddings": 64}
    torch.manual_seed(0)
    config = BlipConfig(text_config=text, vision_config=VISION, projection_dim=16, image_text_hidden_size=16)
    _livelier(BlipForConditionalGeneration(config)).save_pretrained(folder)
    return folder


def save_llava(folder: Path) -> Path:
    """A LLaVA with random weights and a chat template."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )

    special = ["<unk>", "<s>", "</s>", "<pad>", "<image>"]
    words = {word: number for number, word in enumerate([*special, *WORDS.split()])}
    plain = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, additional_special_tokens=["<image>"], **names)
    template = (
        "{% for m in messages %}{% for c in m['content'] %}{% if c['type'] == 'image' %}<image> {% else %}"
        "{{ c['text'] }} {% endif %}{% endfor %}{% endfor %}user "
    )
    size = {"height": 32, "width": 32}
    LlavaProcessor(
        image_processor=CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size),
        tokenizer=tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        chat_template=template,
        num_additional_image_tokens=1,
    ).save_pretrained(folder)
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3}
    text = LlamaConfig(vocab_size=len(words), **SIZES, **ids)
    torch.manual_seed(0)
    config = LlavaConfig(vision_config=CLIPVisionConfig(**VISION), text_config=text, image_token_id=4)
    config.vision_feature_layer = -1
    model = _livelier(LlavaForConditionalGeneration(config))
    model.generation_config.update(**ids)
    model.save_pretrained(folder)
    return folder


def _livelier(model: torch.nn.Module) -> torch.nn.Module:
    """Larger weights: of those that a model begins with, all pictures look alike."""
    for tensor in model.parameters():
        if tensor.ndim > 1:
            tensor.data.mul_(8)
    return model
