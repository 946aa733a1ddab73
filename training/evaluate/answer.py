"""What a trained model says about pictures: captions and answers to questions."""

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
from training.model.multimodal_lm import MultimodalLm
from training.stages.stage_model import StageModel

ANSWER_TOKENS = 96


def answer(built: StageModel, pictures: Sequence[bytes], question: str = "", tokens: int = ANSWER_TOKENS) -> str:
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
        pixels = torch.stack([decode_picture(data, spec) for data in pictures]) if pictures else None
    except BadSample as error:
        raise DataError(f"a picture cannot be decoded: {error}") from None
    device = next(model.connector.parameters()).device
    return codec.decode(model.generate(to_device(question_row(built, pixels, question), device), tokens, codec.eos))


def question_row(built: StageModel, pixels_NCHW: Tensor | None, question: str) -> RowBatch:
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
    turns = [Turn("user", f"{MEDIA_PLACEHOLDER}\n" * count + without_placeholders(question))]
    prompt = codec.prompt(turns) if question else Encoded([codec.start], [IGNORED], [0] * count)
    length = len(prompt.ids) + count * model.picture_tokens
    layout = Layout(model.picture_tokens, model.sound_tokens, length, length, packed=False, template=bool(question))
    row = EncodedRow([Example("", turns, Media(pixels_NCHW, None))], [prompt], 0, 0)
    return lay_out([row], 1, length, layout, codec.pad)
