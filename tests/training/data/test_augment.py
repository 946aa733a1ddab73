"""Copies vary by their seed, the same way every time; first copies stay as they are."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from mmdata.score.preprocess import Crop, Preprocess
from mmdata.shards.members import augment_seeds
from tests.support import modalities, workspaces
from tests.support.made_release import flac, jpeg, tone
from tests.support.scoring import encode
from training.data.augment import (
    MAX_GAIN_DB,
    SPEED_RANGE,
    SeededVariation,
    caption_variants,
    jittered,
    random_crop,
    variation_of,
)
from training.data.examples import Example, Pairs
from training.data.media_tensors import SAMPLE_RATE, MediaSpec, decode_picture, decode_sound, encoded_media
from training.data.sample_index import TrainingRelease, open_training_release
from training.data.sample_reader import SampleReader

SPEC = MediaSpec(Preprocess(size=(24, 32)), frames=4, audio_samples=SAMPLE_RATE, augment=True)
OFTEN = {"threshold": 1.0, "max_repeats": 3}
VARIANTS = ("said another way", "and yet another")


def loudest(wave: np.ndarray) -> float:
    return float(np.argmax(np.abs(np.fft.rfft(wave))) * SAMPLE_RATE / len(wave))


def frames(count: int = 4) -> torch.Tensor:
    return torch.stack([decode_picture(jpeg(number), SPEC) for number in range(count)])


@pytest.fixture(scope="module")
def repeated(tmp_path_factory: pytest.TempPathFactory) -> TrainingRelease:
    """A release of every signature in which rare samples stand several times; clips say their captions in variants."""
    root, patch = tmp_path_factory.mktemp("repeated"), pytest.MonkeyPatch()
    real = modalities.clip

    def clip(video: int, number: int) -> dict:
        made = real(video, number)
        return made | {"extra": json.dumps({**json.loads(made["extra"]), "variants": [*VARIANTS, 7, " "]})}

    patch.setattr(modalities, "clip", clip)
    (root / "concepts.txt").write_text("onion\nbutter\nserve\nsentence\n")
    rare = {"balance": {"max_ratio": None, "concepts": str(root / "concepts.txt")}}
    built = modalities.build(root / "workspace", select={**workspaces.SELECT_ALL, **rare, "oversample": OFTEN})
    patch.undo()
    workspaces.release(built)
    return open_training_release(str(root / "workspace"), root / "cache")


def read_all(release: TrainingRelease, spec: MediaSpec) -> dict[tuple[str, int], Example]:
    """By uid and copy."""
    source = Pairs(release.samples("train"), SampleReader(release), spec)
    return {(source.read(at).uid, int(source.row(at)["copy"])): source.read(at) for at in range(len(source))}


def test_a_seed_varies_all_frames_alike_and_the_same_every_time() -> None:
    same = frames(1).expand(3, -1, -1, -1).contiguous()
    varied = SeededVariation(12345).pictures(same)
    assert torch.equal(varied[0], varied[1]) and torch.equal(varied[1], varied[2])
    assert varied.shape == same.shape and varied.dtype == torch.uint8
    assert not torch.equal(varied, same)
    assert torch.equal(varied, SeededVariation(12345).pictures(same))
    assert not torch.equal(varied, SeededVariation(12346).pictures(same))
    assert (varied.float() - same.float()).abs().mean() < 60, "still the same picture"


def test_colours_change_and_shapes_do_not() -> None:
    plain = torch.full((2, 3, 8, 8), 100, dtype=torch.uint8)
    plain[:, 0] = 140
    changed = [jittered(plain, np.random.default_rng(seed)) for seed in range(20)]
    assert all(picture.flatten(2).unique(dim=2).shape[2] == 1 for picture in changed), "flat stays flat"
    assert len({tuple(picture[0, :, 0, 0].tolist()) for picture in changed}) > 15
    assert all(60 < int(picture.float().mean()) < 160 for picture in changed)


def test_sound_is_faster_or_slower_and_louder_or_softer_within_bounds() -> None:
    data = flac(tone(1000, 0.8), SAMPLE_RATE)
    speeds, gains = [], []
    for seed in range(1, 25):
        variation = SeededVariation(seed)
        wave = decode_sound(data, SAMPLE_RATE, variation).numpy()
        assert wave.dtype == np.float32 and wave.shape == (SAMPLE_RATE,)
        assert np.abs(wave).max() <= 1
        heard = wave[: round(0.7 * SAMPLE_RATE)]
        assert loudest(heard) == pytest.approx(1000 * variation.speed, rel=0.005)
        ends = int(np.flatnonzero(wave)[-1])
        assert ends == pytest.approx(0.8 * SAMPLE_RATE / variation.speed, abs=20)
        speeds.append(variation.speed)
        gains.append(20 * np.log10(np.abs(heard).max() / 0.5))
        assert np.array_equal(wave, decode_sound(data, SAMPLE_RATE, variation).numpy())
    assert SPEED_RANGE[0] <= min(speeds) < 0.95 and 1.05 < max(speeds) <= SPEED_RANGE[1]
    assert -MAX_GAIN_DB - 0.3 <= min(gains) < -2 and 2 < max(gains) <= MAX_GAIN_DB + 0.3


def test_faster_sound_that_is_cut_takes_more_of_its_file() -> None:
    data = flac(tone(500, 3.0), SAMPLE_RATE)
    for seed in range(1, 10):
        wave = decode_sound(data, SAMPLE_RATE, SeededVariation(seed)).numpy()
        assert np.abs(wave[-200:]).max() > 0.1, "no silence where the file goes on"


def test_copies_differ_and_first_copies_are_as_they_were(repeated: TrainingRelease) -> None:
    plain = read_all(repeated, MediaSpec(SPEC.preprocess, 4, SAMPLE_RATE))
    varied = read_all(repeated, SPEC)
    again = read_all(repeated, SPEC)
    copies = pictures = sounds = 0
    for (uid, copy), example in varied.items():
        first, before = varied[uid, 0].media, plain[uid, copy].media
        assert str(example) == str(again[uid, copy])
        for name in ("pictures", "sound"):
            ours, theirs, once = (getattr(media, name) for media in (example.media, before, first))
            assert (ours is None) == (theirs is None)
            if ours is None:
                continue
            assert torch.equal(theirs, getattr(plain[uid, 0].media, name)), "without the switch copies are the same"
            assert torch.equal(ours, once) == (copy == 0)
            pictures, sounds = pictures + (name == "pictures"), sounds + (name == "sound")
        copies += copy > 0
    assert copies > 15 and pictures > 50 and sounds > 30


def test_copies_of_a_clip_say_their_caption_in_other_ways(repeated: TrainingRelease) -> None:
    varied, said = read_all(repeated, SPEC), set()
    for (uid, copy), example in varied.items():
        caption, first = example.turns[-1].text, varied[uid, 0].turns[-1].text
        assert caption == first if copy == 0 else caption in (first, *VARIANTS)
        said.add(caption if caption in VARIANTS else "own")
    assert said == {"own", *VARIANTS}
    source = Pairs(repeated.samples("train"), SampleReader(repeated), SPEC)
    for at in range(len(source)):
        assert source.turns(at) == source.read(at).turns


def test_the_trainer_takes_the_seed_that_the_index_tells(repeated: TrainingRelease) -> None:
    import polars as pl

    index = pl.read_parquet(repeated.release.folder.path + "/index.parquet").filter(pl.col("copy") > 0)
    assert index["augment"].to_list() == augment_seeds(index["uid"], index["copy"]).tolist()
    source, seeds = Pairs(repeated.samples("train"), SampleReader(repeated), SPEC), set()
    for at in range(len(source)):
        variation = variation_of(SampleReader(repeated).members(source.row(at)))
        assert (variation is not None) == bool(source.row(at)["copy"])
        seeds |= {variation.seed} if variation is not None else set()
    media = index.filter(pl.col("signature") != "text", pl.col("split") == "train")
    assert seeds == set(media["augment"])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b'{"extra": 7}',
        b'{"extra": "{"}',
        b'{"extra": {"variants": "a"}}',
        b'{"extra": {"variants": [null]}}',
    ],
)
def test_facts_of_any_kind_are_read(data: bytes) -> None:
    assert variation_of({"json": data}) is None
    assert caption_variants({"json": data}) == []
    assert caption_variants({}) == []


@pytest.mark.parametrize(
    "extra", [{"variants": VARIANTS}, json.dumps({"variants": VARIANTS})], ids=["format 1", "format 2"]
)
def test_variants_are_read_from_releases_of_both_formats(extra: object) -> None:
    assert caption_variants({"json": json.dumps({"extra": extra}).encode()}) == list(VARIANTS)


@pytest.mark.parametrize("scale", [0.5, 0.9, 1.0])
def test_a_crop_keeps_at_least_its_share_of_the_area(scale: float) -> None:
    crops = [random_crop(scale, seed) for seed in range(200)]
    assert crops == [random_crop(scale, seed) for seed in range(200)]
    kept = [crop.height * crop.width for crop in crops]
    assert scale - 1e-9 <= min(kept) < scale + 0.02
    assert max(kept) <= 1.0
    for crop in crops:
        assert 0 <= crop.top <= crop.top + crop.height <= 1 + 1e-9
        assert 0 <= crop.left <= crop.left + crop.width <= 1 + 1e-9
        assert 3 / 4 - 1e-9 <= crop.width / crop.height <= 4 / 3 + 1e-9
    if scale < 1:
        corners = np.array([(crop.top + crop.height, crop.left + crop.width) for crop in crops])
        assert len({round(share, 3) for share in kept}) > 50
        assert abs(np.corrcoef(corners.T)[0, 1]) < 0.5, "not along the diagonal"


def test_a_varied_copy_that_is_cropped_shows_a_part_of_the_varied_one() -> None:
    variation, crop = SeededVariation(9), Crop(0.25, 0.0, 0.5, 0.75)
    data = encode(Image.fromarray(np.tile(np.arange(0, 250, dtype=np.uint8)[:, None, None], (1, 250, 3))), "PNG")
    spec = MediaSpec(Preprocess(size=(250, 250)), augment=True)
    whole, part = (
        encoded_media({"png": data}, spec, variation, crop=chosen).read(spec.features).pictures
        for chosen in (None, crop)
    )
    rows = whole[0, 0, :, 0].float()
    expected = torch.tensor([rows[round(250 * share)] for share in (0.25, 0.5, 0.745)])
    # the brightness is that of what is shown, so levels are compared but for a shift
    differences = (part[0, 0, [0, 125, -1], 0].float() - expected).diff()
    assert differences.abs().max() < 6
    assert part[0, 0, :, 0].float().diff().min() >= -1


def test_all_frames_of_a_clip_are_cropped_alike() -> None:
    frames = {f"{number:03d}.jpg": jpeg(1) for number in range(3)}
    media = encoded_media(frames, SPEC, crop=random_crop(0.5, 3)).read(SPEC.features)
    assert torch.equal(media.pictures[0], media.pictures[1]) and torch.equal(media.pictures[0], media.pictures[2])
    assert not torch.equal(media.pictures[0], decode_picture(jpeg(1), SPEC))
