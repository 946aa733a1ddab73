"""Generated captions are mixed in by a pure draw, and rows are packed for the text that is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mmdata.errors import UserError
from tests.support.captioning import captioned_at
from tests.support.tiny_run import built_stage, settings
from training.data.batch_readers import Share
from training.data.caption_mix import CaptionMix, caption_mix
from training.data.examples import Pairs
from training.data.media_tensors import MediaSpec
from training.data.sample_index import SAMPLE, TrainingRelease, open_training_release
from training.data.sample_reader import SampleReader
from training.stages.stage_reader import make_reader

pytest.importorskip("av", reason="mmdata[video] is not installed")
pytest.importorskip("onnxruntime", reason="mmdata[video] is not installed")


def rows_of(count: int, seed: int = 0) -> np.ndarray:
    rows = np.zeros(count, SAMPLE)
    words = np.random.default_rng(seed).integers(0, 2**63, (count, 2)).astype(np.uint64)
    rows["high"], rows["low"] = words.T
    return rows


def drawn(rows: np.ndarray, rate: float, epoch: int = 0, seed: int = 0) -> np.ndarray:
    mix = CaptionMix(np.ones(len(rows), np.uint32), rate, seed)
    return mix.draws_generated(rows, np.arange(len(rows)), epoch)


def test_the_share_is_the_rate_and_other_epochs_seeds_and_copies_draw_anew() -> None:
    rows = rows_of(20_000)
    base = drawn(rows, 0.3)
    assert abs(base.mean() - 0.3) < 0.015
    copies = rows.copy()
    copies["copy"] = 1
    for other in (drawn(rows, 0.3, epoch=1), drawn(rows, 0.3, seed=1), drawn(copies, 0.3)):
        assert abs((base & other).mean() - 0.09) < 0.01  # independent draws
    assert (drawn(rows, 0.5) | base).sum() == drawn(rows, 0.5).sum(), "a higher rate keeps what a lower one drew"
    assert drawn(rows, 1.0).all() and not drawn(rows, 0.0).any()


def test_a_draw_is_of_the_sample_alone() -> None:
    rows = rows_of(500)
    order = np.random.default_rng(1).permutation(500)
    np.testing.assert_array_equal(drawn(rows[order], 0.4), drawn(rows, 0.4)[order])
    np.testing.assert_array_equal(drawn(rows[:100], 0.4), drawn(rows, 0.4)[:100])


def test_what_has_no_second_caption_is_never_drawn() -> None:
    rows = rows_of(10)
    mix = CaptionMix(np.array([0, 7] * 5, np.uint32), 1.0, 0)
    assert mix.draws_generated(rows, np.arange(10), 3).tolist() == [False, True] * 5


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> TrainingRelease:
    root = tmp_path_factory.mktemp("captioned")
    built = captioned_at(root, shards={"shard_mb": 0.02, "validation_fraction": 0.1})
    return open_training_release(str(built.workspace.root), root / "cache")


def test_a_sample_is_read_with_the_caption_that_the_epoch_draws(release: TrainingRelease) -> None:
    samples, spec = release.samples("train"), MediaSpec(preprocess=_preprocess(), frames=1)
    mix = caption_mix(release, "train", 0.5, seed=3)
    assert mix is not None
    source, plain = (Pairs(samples, SampleReader(release), spec, m) for m in (mix, None))
    generated = Pairs(samples, SampleReader(release), spec, CaptionMix(mix.tokens, 1.0, 0))
    at = np.arange(len(source))
    for epoch in (0, 1):
        chosen = mix.draws_generated(samples, at, epoch)
        assert 0 < chosen.sum() < (mix.tokens > 0).sum()
        for number in at:
            origin = generated if chosen[number] else plain
            assert source.turns(number, epoch) == source.read(number, epoch).turns == origin.turns(number)
        expected = np.where(chosen, mix.tokens, samples["tokens"])
        np.testing.assert_array_equal(source.tokens(at, epoch), expected)
    assert generated.turns(int(np.argmax(mix.tokens > 0)))[0].text.startswith("a photo of a")


@pytest.mark.parametrize("stage", ["align", "joint"])
def test_batches_are_the_same_for_any_world_and_after_a_resume(release: TrainingRelease, stage: str) -> None:
    config = settings(data={"workers": 0, "block": 4, "window_blocks": 2, "generated_captions": 0.5})
    built = built_stage(stage, config)

    def batch(consumed: int, share: Share = Share()) -> list[torch.Tensor]:  # noqa: B008
        made = make_reader(built, release, config, "train", 4, share)[consumed]
        return [made.text] if stage == "align" else [made.input_ids]

    n = len(make_reader(built, release, config, "train", 4, Share()).source)
    whole = batch(n)[0]  # the first batch of the second epoch
    assert torch.equal(batch(n)[0], whole)
    if stage == "align":
        halves = torch.cat([batch(n, Share(rank, 2))[0] for rank in range(2)])
        assert torch.equal(halves, whole)
    plain = settings(data={"workers": 0, "block": 4, "window_blocks": 2})
    other = make_reader(built, release, plain, "train", 4, Share())[n]
    assert not torch.equal(other.text if stage == "align" else other.input_ids, whole)


def test_held_out_samples_keep_their_text_and_a_release_without_captions_is_refused(
    release: TrainingRelease, numbered: str, tmp_path: Path
) -> None:
    assert caption_mix(release, "validation", 0.5, 0) is None and caption_mix(release, "train", 0.0, 0) is None
    other = open_training_release(numbered, tmp_path)
    with pytest.raises(UserError, match=r"has no generated captions\. Remedy: set recaption\.model"):
        caption_mix(other, "train", 0.5, 0)


def _preprocess():  # type: ignore[no-untyped-def]
    from mmdata.score.preprocess import Preprocess

    return Preprocess(size=(16, 16))
