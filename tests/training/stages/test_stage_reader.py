"""The limits on media leave room for text in a row."""

from __future__ import annotations

import pytest

from training.data.row_layout import Layout
from training.stages.stage_reader import CLIP_ROW_SHARE, pictures_that_fit


@pytest.mark.parametrize(
    ("frames", "picture_tokens", "sound_tokens", "length", "fit"),
    [(8, 0, 0, 64, 8), (8, 49, 0, 1024, 8), (8, 64, 0, 512, 4), (8, 64, 100, 512, 2), (8, 256, 0, 256, 1)],
)
def test_frames_leave_half_of_a_row_to_words(
    frames: int, picture_tokens: int, sound_tokens: int, length: int, fit: int
) -> None:
    layout = Layout(picture_tokens, sound_tokens, length, length, packed=True, template=False)
    assert pictures_that_fit(frames, CLIP_ROW_SHARE, layout) == fit
