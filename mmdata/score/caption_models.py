"""Image-text-to-text models of transformers (BLIP, LLaVA, Qwen-VL, SmolVLM, …) as captioners."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmdata.config import Recaption
from mmdata.errors import UserError
from mmdata.fingerprint import fingerprint
from mmdata.score.captioner import TOO_LONG, UNDECODABLE, Answer
from mmdata.score.decode import MAX_PIXELS
from mmdata.score.pretrained import weights_digest
from mmdata.score.safe_loading import load_pretrained
from mmdata.score.scorer import resolve_device

DEFAULT_PROMPT = "Describe this picture in one sentence."
OWN_EXPORT = "multimodal/config.json"  # a file of the folders that `mmdata export` writes


class TransformersCaptioner:
    """A model of AutoModelForImageTextToText; decoding is greedy. Models with a chat template are asked in a chat.

    Others get the prompt as the beginning of the text (BLIP continues it), and by default none.

    Raises:
        UserError: there is no such model, or it is of another kind.
    """

    def __init__(self, settings: Recaption) -> None:
        import torch
        from transformers import AutoModelForImageTextToText, AutoProcessor

        place = settings.model or ""
        if (Path(place) / OWN_EXPORT).is_file():
            raise UserError(
                f"recaption.model: {place} was written by `mmdata export`. "
                "Remedy: recaption.captioner: training.export.exported_captioner:load"
            )
        device = resolve_device(settings.device, "recaption.device")
        dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
        self._processor, self._model = load_pretrained(
            place, "recaption.model", AutoProcessor, AutoModelForImageTextToText, dtype=dtype
        )
        self._model.to(device)
        self._device, self._max_tokens, self._batch_size = device, settings.max_tokens, settings.batch_size
        tokenizer = self._processor.tokenizer
        tokenizer.padding_side = "left"  # so that what is generated follows the prompt
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        self._ends = _end_tokens(self._model, tokenizer)
        self._starts = _start_tokens(self._model)
        special = sorted((token for token in tokenizer.all_special_tokens if len(token) > 1), key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, special)) or "(?!)")
        self._chats = bool(getattr(self._processor, "chat_template", None))
        self.name = Path(place).name if Path(place).is_dir() else place
        reading = (self._processor.to_dict(), getattr(self._processor, "chat_template", None), tokenizer.get_vocab())
        self.fingerprint = fingerprint(weights_digest(self._model), str(dtype), *reading)

    def answers(self, pictures: Sequence[bytes], prompts: Sequence[str | None]) -> list[Answer]:
        answers = [Answer(problem=UNDECODABLE)] * len(pictures)
        decoded = {number: picture for number, data in enumerate(pictures) if (picture := _decoded(data)) is not None}
        for batch in self._batches(list(decoded), prompts):
            texts = [self._plain(prompts[number]) for number in batch]
            made = self._generated([decoded[number] for number in batch], texts)
            for number, answer in zip(batch, made, strict=True):
                answers[number] = answer
        return answers

    def _batches(self, numbers: Sequence[int], prompts: Sequence[str | None]) -> Iterator[list[int]]:
        """Pictures that go through the model together. Without a chat template, only those with the same prompt.

        For BLIP drops the last token of each prompt, which is padding in all prompts but the longest.
        """
        groups: dict[str | None, list[int]] = {}
        for number in numbers:
            groups.setdefault(None if self._chats else prompts[number], []).append(number)
        for group in groups.values():
            yield from (group[at : at + self._batch_size] for at in range(0, len(group), self._batch_size))

    def _generated(self, pictures: list[Any], prompts: list[str | None]) -> list[Answer]:
        import torch

        inputs = self._inputs(pictures, prompts).to(self._device, dtype=self._model.dtype)
        with torch.inference_mode():
            sequences = self._model.generate(
                **inputs, max_new_tokens=self._max_tokens, do_sample=False, num_beams=1
            ).tolist()
        prompt_ids = inputs["input_ids"].tolist() if "input_ids" in inputs else [[]] * len(pictures)
        return [self._answer(_after(ids, prompt)) for ids, prompt in zip(sequences, prompt_ids, strict=True)]

    def _inputs(self, pictures: list[Any], prompts: list[str | None]) -> Any:
        if not self._chats:
            if prompts[0] is None:
                return self._processor(images=pictures, return_tensors="pt")
            image_token = getattr(self._processor, "image_token", None)
            texts = [prompt if image_token is None else f"{image_token}{prompt}" for prompt in prompts]
            return self._processor(images=pictures, text=texts, padding=True, return_tensors="pt")
        chats = [
            [{"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": prompt}]}]
            for picture, prompt in zip(pictures, (prompt or DEFAULT_PROMPT for prompt in prompts), strict=True)
        ]
        return self._processor.apply_chat_template(
            chats,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            processor_kwargs={"padding": True, "return_tensors": "pt"},
        )

    def _plain(self, prompt: str | None) -> str | None:
        """Break special tokens in a prompt with a space: a caption of the web must not end a turn or add a picture."""
        return None if prompt is None else self._special.sub(lambda match: f"{match[0][0]} {match[0][1:]}", prompt)

    def _answer(self, ids: list[int]) -> Answer:
        """The text of generated tokens; longer than allowed if no end token is among them."""
        ids = ids[1:] if ids and ids[0] in self._starts else ids
        text = self._processor.decode(ids, skip_special_tokens=True).strip()
        has_ended = any(token in self._ends for token in ids) or len(ids) < self._max_tokens
        return Answer(text, None if has_ended else TOO_LONG)


def _decoded(data: bytes) -> Any:
    """A picture in RGB; None if it cannot be decoded."""
    from PIL import Image

    try:
        picture = Image.open(io.BytesIO(data))
        return picture.convert("RGB") if picture.width * picture.height <= MAX_PIXELS else None
    except Exception:  # noqa: BLE001 - decoders raise what they like on hostile bytes
        return None


def _end_tokens(model: Any, tokenizer: Any) -> set[int]:
    """The tokens at which a model stops."""
    if model.config.model_type == "blip":  # its `generate` stops there, whatever its configuration says
        return {model.config.text_config.sep_token_id}
    ends = model.generation_config.eos_token_id
    return {tokenizer.eos_token_id} if ends is None else set(ends if isinstance(ends, list) else [ends])


def _start_tokens(model: Any) -> set[int]:
    """The tokens that models with a decoder of their own begin with; not every tokenizer calls them special."""
    configs = (model.config, getattr(model.config, "text_config", None), model.generation_config)
    names = ("decoder_start_token_id", "bos_token_id")
    return {token for config in configs for name in names if (token := getattr(config, name, None)) is not None}


def _after(ids: list[int], prompt: list[int]) -> list[int]:
    """What was generated after the prompt. Some models return the prompt, BLIP without its last token, some do not."""
    for length in (len(prompt), len(prompt) - 1):
        if length > 0 and ids[:length] == prompt[:length]:
            return ids[length:]
    return ids
