"""Resizing, cropping and padding give open_clip's own pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from mmdata.score.decode import decode_picture, decode_pixels, jpeg_reduction
from mmdata.score.preprocess import Crop, Preprocess
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


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("size", [(300, 200), (150, 333), (31, 40), (900, 700)])
@pytest.mark.parametrize("crop", [Crop(0, 0, 1, 1), Crop(0.25, 0, 0.5, 0.75), Crop(0, 0.5, 0.75, 0.5)])
@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_a_crop_in_one_operation_shows_what_fitting_and_cropping_show(
    mode: str, size: tuple[int, int], crop: Crop, form: str
) -> None:
    data = encode(photo(3, *size), form)
    wide, small = (Preprocess(size=(side, side), resize_mode=mode, fill_color=30) for side in (256, 64))  # type: ignore[arg-type]
    top, left, height, width = (round(256 * share) for share in (crop.top, crop.left, crop.height, crop.width))
    whole = decode_pixels(data, wide)[top : top + height, left : left + width]
    expected = np.asarray(Image.fromarray(whole).resize((64, 64), Image.Resampling.BICUBIC)).astype(int)
    difference = np.abs(decode_pixels(data, small, crop) - expected)
    assert np.quantile(difference, 0.9) < 17  # whole pixels are cut, so an edge may be half a stored pixel off


def test_a_crop_that_lies_in_the_padding_is_filled() -> None:
    preprocess = Preprocess(size=(64, 64), resize_mode="longest", fill_color=30)
    assert (decode_pixels(encode(photo(3, 400, 40), "PNG"), preprocess, Crop(0, 0, 0.2, 1)) == 30).all()


def test_a_jpeg_is_reduced_by_as_much_as_its_crop_allows() -> None:
    preprocess = Preprocess(size=(64, 64))
    assert [jpeg_reduction(600, 600, preprocess, Crop(0, 0, share, 1)) for share in (1, 0.5, 0.4, 0.2)] == [8, 4, 2, 1]
    assert jpeg_reduction(600, 600, preprocess) == 2, "sharpness is measured of the whole"
