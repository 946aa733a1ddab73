"""An exported processor writes the prompts that the trainer wrote, and prepares pictures as it did."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmdata.errors import UserError
from mmdata.score.preprocess import Preprocess
from tests.support.hf_folders import LLAVA_TEMPLATE, tokenizer
from tests.support.trained import photo
from training.data.media_tensors import MediaSpec, decode_picture
from training.data.text_codec import MEDIA_PLACEHOLDER, TextCodec, Turn
from training.export.llava_processor import chat_template, picture_processor, with_image_token

CHATML = (
    "{% if messages[0]['role'] == 'system' %}{{ '<|im_start|>system\\n' + messages[0]['content'] + '</s>\\n' }}"
    "{% set messages = messages[1:] %}{% endif %}{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '</s>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
TEMPLATES = [None, CHATML, LLAVA_TEMPLATE]


def said(role: str, *parts: str) -> dict[str, Any]:
    """A message; `+` is a picture."""
    return {"role": role, "content": [{"type": "image"} if p == "+" else {"type": "text", "text": p} for p in parts]}


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("ends", [False, True])
def test_prompts_are_the_trainers(template: str | None, ends: bool) -> None:
    codec = TextCodec(tokenizer(template=template, special=("<|im_start|>",), ends=ends))
    written, image, is_new = with_image_token(codec.tokenizer)
    assert is_new
    later = [said("user", "Hi"), said("assistant", "A dog."), said("user", "+", "猫")]
    conversations = [
        ([said("user", "+", "What is this?")], [f"{MEDIA_PLACEHOLDER}\nWhat is this?"]),
        ([said("user", "+", "+", "A cat?")], [f"{MEDIA_PLACEHOLDER}\n{MEDIA_PLACEHOLDER}\nA cat?"]),
        (later, ["Hi", "A dog.", f"{MEDIA_PLACEHOLDER}\n猫"]),
        ([{"role": "user", "content": "Words alone"}], ["Words alone"]),
    ]
    for messages, texts in conversations:
        turns = [Turn("assistant" if number % 2 else "user", text) for number, text in enumerate(texts)]
        encoded = codec.prompt(turns)
        wanted = list(encoded.ids)
        for at in reversed(encoded.media_at):
            wanted.insert(at, image)
        rendered = written.apply_chat_template(
            messages, chat_template=chat_template(codec, "instruct"), tokenize=False, add_generation_prompt=True
        )
        assert written(rendered)["input_ids"] == wanted, rendered


def test_a_system_message_goes_to_the_models_own_template() -> None:
    codec = TextCodec(tokenizer(template=CHATML, special=("<|im_start|>",)))
    messages = [{"role": "system", "content": "Be brief."}, said("user", "+", "What?")]
    rendered = codec.tokenizer.apply_chat_template(
        messages, chat_template=chat_template(codec, "instruct"), tokenize=False
    )
    assert rendered == "<|im_start|>system\nBe brief.</s>\n<|im_start|>user\n<image>\nWhat?</s>\n"


def test_a_captioner_is_shown_pictures_and_no_words() -> None:
    codec = TextCodec(tokenizer())
    template = chat_template(codec, "joint")
    rendered = codec.tokenizer.apply_chat_template(
        [said("user", "+", "+", "x")], chat_template=template, tokenize=False
    )
    assert rendered == "<image><image><s>"


def test_an_image_token_that_is_there_is_taken_and_the_trainers_tokenizer_stays() -> None:
    own = tokenizer(special=("<image>",), ends=True)
    written, image, is_new = with_image_token(own)
    assert (image, is_new) == (3, False)
    assert len(written) == len(own)
    assert own("a")["input_ids"] != written("a")["input_ids"] == own("a", add_special_tokens=False)["input_ids"]
    plain = tokenizer()
    assert with_image_token(plain)[1] == len(plain)
    assert "<image>" not in plain.get_vocab()


@pytest.mark.parametrize("mode", ["shortest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_pictures_are_prepared_as_in_training(mode: Any, interpolation: Any) -> None:
    preprocess = Preprocess(
        (24, 24), mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), interpolation=interpolation, resize_mode=mode
    )
    shown = photo(5)  # 30 wide, 40 high
    ours = decode_picture(shown, MediaSpec(preprocess)).numpy()
    processor = picture_processor(preprocess)
    pixels = processor(images=[Image.open(BytesIO(shown))], return_tensors="np")["pixel_values"][0]
    theirs = (pixels * np.array(preprocess.std)[:, None, None] + np.array(preprocess.mean)[:, None, None]) * 255
    assert np.abs(theirs - ours).max() < 1.5


def test_padded_pictures_are_not_llavas() -> None:
    with pytest.raises(UserError, match=r"resize_mode `longest`.* Remedy: "):
        picture_processor(replace(Preprocess((24, 24)), resize_mode="longest"))
