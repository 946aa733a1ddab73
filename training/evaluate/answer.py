"""Generates captions and answers about pictures with a trained model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmdata.errors import DataError, UserError
from training.data.batch_types import RowBatch, to_device
from training.data.examples import Example
from training.data.media_tensors import Media, MediaSpec, decode_picture
from training.data.row_layout import EncodedRow, Layout, lay_out
from training.data.sample_reader import BadSample
from training.data.text_codec import IGNORED, MEDIA_PLACEHOLDER, Encoded, Turn, without_placeholders
from training.stages.stage_model import StageModel

ANSWER_TOKENS = 96


def answer(built: StageModel, pictures: Sequence[bytes], question: str = "", tokens: int = ANSWER_TOKENS) -> str:
    """Generate the answer to a question about pictures (stage `instruct`), or a caption (stage `joint`).

    Args:
        pictures: encoded as JPEG, PNG or WebP.
        question: comes after the pictures; empty in stage `joint`, which has not learned to read questions.
        tokens: the most tokens of an answer. The likeliest token is taken each time.

    Raises UserError: a question for a model that only captions, or no question for one that answers.
    Raises DataError: a picture that cannot be decoded.
    """
    model, codec = built.generative()
    spec = MediaSpec(model.vision.preprocess)
    try:
        pixels = torch.stack([decode_picture(data, spec) for data in pictures]) if pictures else None
    except BadSample as error:
        raise DataError(f"a picture cannot be decoded: {error}") from None
    device = next(model.connector.parameters()).device
    batch = to_device(question_batch(built, pixels, question), device)
    return codec.decode(model.generate(batch, tokens, codec.ends)[0])


def question_batch(built: StageModel, pixels_NCHW: Tensor | None, question: str) -> RowBatch:
    """A batch of one row that ends where the answer to a question begins. Raises UserError as `answer`.

    Args: pixels_NCHW: uint8; None without pictures.
    """
    _, codec = built.generative()
    media = Media(pixels_NCHW, None)
    count, _ = media.counts
    if (built.stage == "instruct") != bool(question):
        ability = "takes a question" if built.stage == "instruct" else "captions pictures and takes no question"
        raise UserError(f"a model of stage `{built.stage}` {ability}. Remedy: use the export of the other stage.")
    turns = [Turn("user", f"{MEDIA_PLACEHOLDER}\n" * count + without_placeholders(question))]
    prompt = codec.prompt(turns) if question else Encoded([codec.start], [IGNORED], [0] * count)
    return prompt_batch(built, Example("", turns, media), prompt)


def prompt_batch(built: StageModel, example: Example, prompt: Encoded) -> RowBatch:
    """A batch of one row that holds a prompt and the media of an example, and ends where the answer begins."""
    return prompts_batch(built, [(example, prompt)])


def prompts_batch(built: StageModel, prompts: Sequence[tuple[Example, Encoded]]) -> RowBatch:
    """A batch of a row for each prompt with its example's media. All take equally many tokens: see `prompt_length`."""
    model, codec = built.generative()
    length = prompt_length(built, *prompts[0])
    layout = Layout(model.picture_tokens, model.sound_tokens, length, length, packed=False, template=False)
    rows = [EncodedRow([example], [prompt], 0, 0) for example, prompt in prompts]
    return lay_out(rows, len(rows), length, layout, codec.pad)


def prompt_length(built: StageModel, example: Example, prompt: Encoded) -> int:
    """Tokens of a prompt with the media of its example."""
    model, _ = built.generative()
    pictures, sounds = example.media.counts
    return len(prompt.ids) + pictures * model.picture_tokens + sounds * model.sound_tokens
