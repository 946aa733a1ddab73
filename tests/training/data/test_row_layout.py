"""Rows as tensors: labels, positions and media in their columns."""

from __future__ import annotations

from dataclasses import replace

import torch

from training.data.examples import Example
from training.data.media_tensors import Media
from training.data.row_layout import EncodedRow, Layout, lay_out
from training.data.text_codec import IGNORED, Encoded, TextCodec, Turn, load_tokenizer

PAIRS = Layout(picture_tokens=4, sound_tokens=6, pack_length=160, max_text_tokens=120, packed=True, template=False)


TURNS = replace(PAIRS, template=True, pack_length=256, max_text_tokens=200)


CODEC = TextCodec(load_tokenizer("bytes"))


def test_a_samples_first_token_is_never_learned_from_the_sample_before() -> None:
    """Even where a conversation begins with an answer."""
    nothing = Media(None, None)
    examples = [Example(name, [Turn("assistant", name)], nothing) for name in ("one", "two")]
    row = EncodedRow(examples, [CODEC.conversation(example.turns) for example in examples], 0, 0)
    assert row.encoded[1].labels[0] != IGNORED
    batch = lay_out([row], 2, 32, TURNS, CODEC.pad)
    starts = batch.segment.diff(dim=1, prepend=torch.zeros(2, 1, dtype=torch.long)) > 0
    assert int(starts.sum()) == 2
    assert (batch.labels[starts] == IGNORED).all()
    assert batch.labels[0, 1:4].tolist() == row.encoded[0].ids[1:4]
    empty = lay_out([EncodedRow([examples[0]], [Encoded([], [])], 0, 0)], 1, 8, TURNS, CODEC.pad)
    assert not empty.segment.any()
