"""What a trained model says about pictures: captions and answers to questions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmdata.errors import DataError, UserError
from training.data.examples import Batch, Example
from training.data.release_index import BadSample
from training.data.rows import Layout, Row, lay_out
from training.data.tensors import Media, MediaSpec, picture
from training.data.tokens import IGNORED, MEDIUM, Encoded, Turn, clean
from training.model.lm import MultimodalLm
from training.stages.stages import Built
from training.trainer import to_device

ANSWER_TOKENS = 96


def answer(built: Built, pictures: Sequence[bytes], question: str = "", tokens: int = ANSWER_TOKENS) -> str:
    """What a model says about pictures: the answer to a question in stage `instruct`, a caption in stage `joint`.

    Args:
        pictures: encoded (JPEG, PNG, WebP).
        question: shown after the pictures; stage `joint` has learned none and takes none.
        tokens: at most so many; the most likely one is taken each time.

    Raises:
        UserError: a question to a model that only captions, or no question to one that answers.
        DataError: a picture that cannot be decoded.
    """
    model, codec = built.model, built.codec
    assert isinstance(model, MultimodalLm)
    assert codec is not None
    spec = MediaSpec(model.vision.preprocess)
    try:
        pixels = torch.stack([picture(data, spec) for data in pictures]) if pictures else None
    except BadSample as error:
        raise DataError(f"a picture cannot be decoded: {error}") from None
    device = next(model.connector.parameters()).device
    return codec.decode(model.generate(to_device(question_row(built, pixels, question), device), tokens, codec.eos))


def question_row(built: Built, pixels_NCHW: Tensor | None, question: str) -> Batch:
    """One row that ends where the answer begins. Raises UserError as `answer`.

    Args:
        pixels_NCHW: uint8.
    """
    model, codec = built.model, built.codec
    assert isinstance(model, MultimodalLm)
    assert codec is not None
    count = 0 if pixels_NCHW is None else len(pixels_NCHW)
    if (built.stage == "instruct") != bool(question):
        told = "takes a question" if built.stage == "instruct" else "captions pictures and takes no question"
        raise UserError(f"a model of stage `{built.stage}` {told}. Remedy: the export of the other stage.")
    turns = [Turn("user", f"{MEDIUM}\n" * count + clean(question))]
    prompt = codec.prompt(turns) if question else Encoded([codec.start], [IGNORED], [0] * count)
    length = len(prompt.ids) + count * model.picture_tokens
    layout = Layout(model.picture_tokens, model.sound_tokens, length, length, packed=False, template=bool(question))
    return lay_out([Row([Example("", turns, Media(pixels_NCHW, None))], [prompt], 0, 0)], 1, length, layout, codec.pad)
