"""Resizing, cropping and padding give open_clip's own pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmdata.score.decode import decode_picture
from mmdata.score.preprocess import Preprocess
from tests.support.scoring import MEAN, STD, encode, photo


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("size", [(300, 200), (150, 333), (64, 64), (20, 500), (31, 40)])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_every_resize_mode_gives_open_clips_pixels(mode: str, size: tuple[int, int], interpolation: str) -> None:
    from open_clip.transform import PreprocessCfg, image_transform_v2

    config = {"size": 64, "mean": MEAN, "std": STD, "resize_mode": mode, "interpolation": interpolation}
    picture = photo(3, *size)
    wanted = image_transform_v2(PreprocessCfg(**config, fill_color=0), is_train=False)(picture)
    wanted = (wanted * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)) * 255
    out = np.full((64, 64, 3), 77, np.uint8)
    decode_picture(encode(picture, "PNG"), Preprocess.from_open_clip(config), out)
    difference = np.abs(out.transpose(2, 0, 1) - wanted.numpy())
    assert difference.mean() < 0.5 and difference.max() < 3.01  # grey levels of 255
