from __future__ import annotations

import io
import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmdata.score.picture_measures import aspect, grey_levels, perceptual_hash, sharpness
from tests.support.scoring import encode, photo


def hamming(a: int, b: int) -> int:
    return (a ^ b).bit_count()


def grey(picture: Image.Image) -> np.ndarray:
    return grey_levels(np.array(picture.convert("RGB")))


def reencoded(picture: Image.Image, scale: float, quality: int) -> Image.Image:
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    smaller = picture.resize(size, Image.Resampling.BICUBIC)
    return Image.open(io.BytesIO(encode(smaller.convert("RGB"), quality=quality)))


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(("scale", "quality"), [(1.0, 60), (0.5, 90), (0.5, 40), (1.7, 80)])
def test_hash_survives_resizing_and_reencoding(seed: int, scale: float, quality: int) -> None:
    picture = photo(seed, 480, 360)
    assert hamming(perceptual_hash(grey(picture)), perceptual_hash(grey(reencoded(picture, scale, quality)))) <= 4


def test_hashes_of_different_pictures_differ_in_many_bits() -> None:
    hashes = [perceptual_hash(grey(photo(seed))) for seed in range(30)]
    distances = [hamming(a, b) for a, b in itertools.combinations(hashes, 2)]
    assert min(distances) > 8
    assert 28 < np.mean(distances) < 36


def test_hash_is_zauners_dct_hash() -> None:
    levels = grey(photo(4, 32, 32)).astype(np.float64)  # 32 x 32: nothing to resize
    n = np.arange(32)
    basis = np.sqrt(2 / 32) * np.cos(np.pi * (2 * n[None] + 1) * n[:, None] / 64)
    block = (basis @ levels @ basis.T)[1:9, 1:9].ravel()
    wanted = sum(1 << k for k in range(64) if block[k] > np.median(block))
    assert perceptual_hash(levels.astype(np.uint8)) == wanted


def test_flat_pictures_hash_to_zero_whatever_their_shade() -> None:
    for shade in (0, 7, 128, 255):
        assert perceptual_hash(np.full((90, 70), shade, np.uint8)) == 0
    noisy = np.full((256, 256), 128, np.uint8) + np.random.default_rng(0).integers(0, 2, (256, 256), dtype=np.uint8)
    assert perceptual_hash(noisy) == 0


def test_hash_uses_all_64_bits() -> None:
    hashes = np.array([perceptual_hash(grey(photo(seed))) for seed in range(40)], np.uint64)
    assert int(np.bitwise_or.reduce(hashes)) == 2**64 - 1
    assert int(np.bitwise_and.reduce(hashes)) == 0


def test_sharpness_falls_with_blur_and_compares_across_sizes() -> None:
    picture = photo(1, 1024, 1024)
    small = picture.resize((512, 512), Image.Resampling.BOX)
    blurred = picture.resize((100, 100), Image.Resampling.BOX).resize((1024, 1024), Image.Resampling.BICUBIC)
    whole, half = sharpness(grey(picture)), sharpness(grey(small))
    assert sharpness(grey(blurred)) < 0.5 * whole
    assert half == pytest.approx(whole, rel=0.1)
    assert sharpness(np.full((300, 200), 90, np.uint8)) == 0


def test_a_small_picture_counts_as_a_blurred_large_one() -> None:
    picture = photo(2, 512, 512)
    assert sharpness(grey(picture.resize((40, 40), Image.Resampling.BOX))) < 0.6 * sharpness(grey(picture))


@pytest.mark.parametrize("shape", [(1, 1), (1, 4000), (3000, 2), (5, 5)])
def test_extreme_shapes_are_measured(shape: tuple[int, int]) -> None:
    levels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    assert 0 <= perceptual_hash(levels) < 2**64
    assert np.isfinite(sharpness(levels))


def test_aspect_is_longer_over_shorter_side() -> None:
    assert aspect(200, 100) == aspect(100, 200) == 2
    assert aspect(0, 10) is None


def test_on_real_pictures_hashes_hold_and_hardly_collide(real_corpus: Path) -> None:
    files = sorted((real_corpus / "images").glob("*.jpg"))[:150]
    pictures = [Image.open(file).convert("RGB") for file in files]
    hashes = [perceptual_hash(grey(p)) for p in pictures]
    again = [perceptual_hash(grey(reencoded(p, 0.6, 75))) for p in pictures]
    moved = np.array([hamming(a, b) for a, b in zip(hashes, again, strict=True)])
    assert (moved <= 4).mean() > 0.97
    apart = np.array([hamming(a, b) for a, b in itertools.combinations(hashes, 2)])
    assert (apart <= 4).mean() < 0.01
