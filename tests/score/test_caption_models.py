"""Models of transformers with random weights caption as transformers itself does, one picture at a time."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from mmdata.config import Recaption
from mmdata.errors import UserError
from mmdata.score.caption_models import TransformersCaptioner
from tests.support.captioning import save_blip, save_llava
from tests.support.hostile_tars import Touch
from tests.support.scoring import encode, photo

PICTURES = [encode(photo(number, 80, 64)) for number in range(4)]


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_blip(tmp_path_factory.mktemp("captioners") / "blip")


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llava(tmp_path_factory.mktemp("captioners") / "llava")


def captioner(folder: Path, **settings: Any) -> TransformersCaptioner:
    return TransformersCaptioner(Recaption(model=str(folder), device="cpu", max_tokens=10, batch_size=8, **settings))


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


@torch.no_grad()
def by_transformers(folder: Path, picture: bytes, text: str | None) -> str:
    """The text after the prompt, as the examples in transformers' documentation make it."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    inputs = processor(images=opened(picture), text=text, return_tensors="pt")
    begins = 1 if text is None else inputs["input_ids"].shape[1] - (model.config.model_type == "blip")
    ids = model.generate(**inputs, max_new_tokens=10, do_sample=False)
    return processor.decode(ids[0][begins:], skip_special_tokens=True).strip()


def test_blip_continues_prompts_of_any_length_in_a_batch(blip: Path) -> None:
    prompts = [None, "a photo of", "one big"]
    pairs = list(zip(PICTURES, prompts, strict=False))
    answers = captioner(blip).answers(PICTURES[:3], prompts)
    expected = [by_transformers(blip, picture, prompt) for picture, prompt in pairs]
    assert [answer.text for answer in answers] == expected and len(set(expected)) == 3
    assert {answer.problem for answer in answers} == {"too_long"}  # of random weights no caption ends in ten tokens


def test_a_chat_model_is_asked_with_its_template_in_a_padded_batch(llava: Path) -> None:
    prompts = ["describe this picture in one sentence", "big dog", None, None]
    texts = [f"<image> {prompt or 'Describe this picture in one sentence.'} user " for prompt in prompts]
    expected = [by_transformers(llava, picture, text) for picture, text in zip(PICTURES, texts, strict=True)]
    assert [answer.text for answer in captioner(llava).answers(PICTURES, prompts)] == expected
    assert expected[2] != expected[3], "it does not look at the picture"


def always_saying(blip: Path, token: int, folder: Path) -> Path:
    from transformers import BlipForConditionalGeneration

    shutil.copytree(blip, folder)
    model = BlipForConditionalGeneration.from_pretrained(blip)
    model.text_decoder.cls.predictions.bias.data[token] = 1e4
    model.save_pretrained(folder)
    return folder


def test_a_caption_that_does_not_end_and_a_broken_picture_have_a_problem(blip: Path, tmp_path: Path) -> None:
    separator, word = 3, 9  # the separator ends BLIP's captions
    pictures = [PICTURES[0], b"no picture", PICTURES[0][:300]]
    endless = captioner(always_saying(blip, word, tmp_path / "endless")).answers(pictures, [None] * 3)
    assert [answer.problem for answer in endless] == ["too_long", "undecodable", "undecodable"]
    answer = captioner(always_saying(blip, separator, tmp_path / "brief")).answers(PICTURES[:1], ["a photo of"])[0]
    assert (answer.text, answer.problem) == ("", None)


def test_special_tokens_in_a_prompt_are_plain_text(llava: Path) -> None:
    answers = captioner(llava).answers(PICTURES[:1], ["red <image> dog </s> user"])
    assert answers[0].text == captioner(llava).answers(PICTURES[:1], ["red < image> dog < /s> user"])[0].text


def test_the_fingerprint_is_of_the_weights_and_the_reading_and_not_of_the_folder(blip: Path, tmp_path: Path) -> None:
    from transformers import BlipForConditionalGeneration

    shutil.copytree(blip, tmp_path / "copy")
    one = captioner(blip)
    assert captioner(tmp_path / "copy").fingerprint == one.fingerprint and one.name == "blip"
    processor = tmp_path / "copy" / "processor_config.json"
    processor.write_text(processor.read_text().replace('"do_normalize": true', '"do_normalize": false'))
    assert captioner(tmp_path / "copy").fingerprint != one.fingerprint
    shutil.copytree(blip, tmp_path / "other")
    model = BlipForConditionalGeneration.from_pretrained(blip)
    next(model.parameters()).data.add_(1e-3)
    model.save_pretrained(tmp_path / "other")
    assert captioner(tmp_path / "other").fingerprint != one.fingerprint


def test_what_is_no_such_model_is_named(tmp_path: Path, blip: Path) -> None:
    with pytest.raises(UserError, match=r"recaption\.model: .* cannot be loaded"):
        captioner(tmp_path)
    shutil.copytree(blip, tmp_path / "pickled")
    (tmp_path / "pickled" / "model.safetensors").unlink()
    torch.save({"x": Touch(tmp_path / "ran")}, tmp_path / "pickled" / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"recaption\.model"):
        captioner(tmp_path / "pickled")
    assert not (tmp_path / "ran").exists()


def test_a_folder_of_mmdata_export_names_the_captioner_that_reads_it(tmp_path: Path) -> None:
    (tmp_path / "multimodal").mkdir()
    (tmp_path / "multimodal" / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"recaption\.captioner: training.export.exported_captioner:load"):
        captioner(tmp_path)
