"""Captions by a model of ours: `recaption.captioner: training.export.exported_captioner:load` in corpus.yaml."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from mmdata.config import Recaption
from mmdata.errors import UserError
from mmdata.fingerprint import fingerprint
from mmdata.instruct.templates import TEMPLATES
from mmdata.score.captioner import TOO_LONG, UNDECODABLE, Answer
from mmdata.score.pretrained import weights_digest
from mmdata.score.scorer import resolve_device
from training.data.batch_types import to_device
from training.data.media_tensors import MediaSpec, decode_picture
from training.data.sample_reader import BadSample
from training.evaluate.answer import question_batch
from training.export.exported import Exported, load_exported

DEFAULT_QUESTION = TEMPLATES["caption"]["en"][0]
"""What a model of stage `instruct` is asked by default: a question that it was trained on."""


class ExportedCaptioner:
    """A model of stage `joint` or `instruct` that `mmdata export` wrote. The likeliest token is taken each time."""

    def __init__(self, folder: Path, exported: Exported, max_tokens: int, device: str) -> None:
        self._exported, self._max_tokens, self._device = exported, max_tokens, torch.device(device)
        model, codec = exported.generative()
        model.to(self._device)
        self._spec = MediaSpec(model.vision.preprocess)
        self.name = folder.name
        vocabulary = codec.tokenizer.get_vocab()
        self.fingerprint = fingerprint(weights_digest(model), exported.stage, vocabulary)

    def answers(self, pictures: Sequence[bytes], prompts: Sequence[str | None]) -> list[Answer]:
        return [self._answer(picture, prompt) for picture, prompt in zip(pictures, prompts, strict=True)]

    def _answer(self, picture: bytes, prompt: str | None) -> Answer:
        model, codec = self._exported.generative()
        try:
            pixels = decode_picture(picture, self._spec)[None]
        except BadSample:
            return Answer(problem=UNDECODABLE)
        question = prompt or (DEFAULT_QUESTION if self._exported.stage == "instruct" else "")
        batch = to_device(question_batch(self._exported, pixels, question), self._device)
        (ids,) = model.generate(batch, self._max_tokens, codec.ends)
        return Answer(codec.decode(ids), TOO_LONG if len(ids) == self._max_tokens else None)


def load(settings: Recaption) -> ExportedCaptioner:
    """The captioner that the section `recaption` describes.

    Raises:
        UserError: the folder holds no exported language model, or a model of stage `joint` is given a prompt.
        DataError: one of its files is broken or missing.
    """
    folder = Path(settings.model or "")
    exported = load_exported(folder)
    if exported.stage == "joint" and settings.prompt is not None:
        raise UserError(
            f"recaption.prompt: {folder} is of stage `joint`, which captions pictures and takes no question. "
            "Remedy: leave the prompt out, or use the export of stage `instruct`."
        )
    device = resolve_device(settings.device, "recaption.device")
    return ExportedCaptioner(folder, exported, settings.max_tokens, device)
