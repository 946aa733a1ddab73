"""Clips and sound through all three stages, on a release of every signature that the publish stages made."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmdata.score.preprocess import Preprocess
from tests.support import modalities, workspaces
from tests.support.tiny_run import alone, built_stage, first_batch, settings
from tests.support.tiny_towers import SMALL
from training.config import TrainConfig
from training.data.batch_types import Batch
from training.data.examples import Example, Instructions, Pairs
from training.data.media_tensors import MediaSpec
from training.data.records import RECORD, MediaLimits, open_records
from training.data.sample_index import TrainingRelease, open_training_release, row_uid
from training.data.sample_reader import SampleReader
from training.data.text_codec import MEDIA_PLACEHOLDER
from training.model.encoders import DualEncoder
from training.model.multimodal_lm import MultimodalLm
from training.run import train
from training.stages.align import kind_weights
from training.stages.stage_model import StageModel
from training.stages.stage_step import make_step
from training.step_log import read_log

TASKS = ["caption", "text_qa", "step_caption", "step_order", "what_comes_next", "transcribe", "audio_visual_match"]
FORMS = ("record", "llava", "chat")
SPEC = MediaSpec(Preprocess(size=(16, 16)), frames=8, audio_samples=8000)
AUDIO = {"kind": "logmel_vit", "config": SMALL, "mel_bins": 16, "seconds": 1.0}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return published(tmp_path_factory.mktemp("every"), "path")


@pytest.fixture(scope="module")
def release(workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingRelease:
    return open_training_release(str(workspace), tmp_path_factory.mktemp("cache"))


def published(root: Path, images: str) -> Path:
    workspaces.release(modalities.build(root / "workspace", instruct={"tasks": TASKS, "images": images}))
    return root / "workspace"


def hearing(**sections: Any) -> TrainConfig:
    """The smallest configuration with a sound tower, and rows that are long enough for prompts in bytes."""
    generative = {"steps": 2, "batch_size": 24, "pack_length": 640, "max_text_tokens": 500}
    base = {
        "model": {**settings().model.model_dump(), "audio": AUDIO},
        "align": {"steps": 2, "batch_size": 24},
        "joint": generative,
        "instruct": generative,
    }
    return settings(**{**base, **sections})


def gradients(stage: str, config: TrainConfig, batch: Batch) -> tuple[StageModel, dict[str, torch.Tensor]]:
    """A stage's model after one forward and backward pass, and its losses."""
    built = built_stage(stage, config)
    step = make_step(built, built.model, config, alone())
    return built, step(batch)


def test_all_three_stages_train_on_every_signature(workspace: Path, tmp_path: Path) -> None:
    config = hearing()
    results = train(str(workspace), ["align", "joint", "instruct"], config, tmp_path)
    assert [result.steps for result in results] == [2, 2, 2]
    for stage in ("align", "joint", "instruct"):
        lines = [line for line in read_log(tmp_path / stage) if line["kind"] == "train"]
        assert lines and all(np.isfinite(line["loss"]) for line in lines)
        assert lines[-1]["bad_samples"] == 0
    last = [line for line in read_log(tmp_path / "align") if line["kind"] == "validation"][-1]
    assert {"val/image_to_text/recall@1", "val/audio_to_text/recall@1", "val/recall@1"} <= set(last)


def test_a_clip_with_sound_trains_both_of_its_pairings(workspace: Path, tmp_path: Path) -> None:
    config = hearing()
    built = built_stage("align", config)
    batch = first_batch(built, config, str(workspace), tmp_path, size=80)
    has = kind_weights(batch)
    both = (has[:, 1] > 0) & (has[:, 2] > 0)
    assert int(both.sum()) > 5
    assert int(((has[:, 0] > 0) & (has[:, 2] > 0)).sum()) >= 1, "a picture with a voice, too"
    assert int((has.sum(1) == 0).sum()) == 0
    built, shares = gradients("align", config, batch)
    assert set(shares) == {"image", "video", "audio"}
    assert all(float(share) > 0 for share in shares.values())
    assert isinstance(built.model, DualEncoder) and built.model.audio is not None
    assert built.model.audio.proj.weight.grad is not None
    assert float(built.model.audio.proj.weight.grad.abs().max()) > 1e-6
    only_both = replace(batch, weight=both.float())
    shares = gradients("align", config, only_both)[1]
    assert float(shares["image"]) == 0 and float(shares["video"]) > 0 and float(shares["audio"]) > 0


@pytest.mark.parametrize("stage", ["joint", "instruct"])
def test_sound_matters_to_the_language_model(workspace: Path, tmp_path: Path, stage: str) -> None:
    config = hearing()
    built = built_stage(stage, config)
    batch = first_batch(built, config, str(workspace), tmp_path, size=24)
    assert batch.sound.data is not None and len(batch.sound.data) > 3
    assert batch.picture.data is not None and len(batch.picture.data) > 20
    built, shares = gradients(stage, config, batch)
    model = built.model
    assert isinstance(model, MultimodalLm) and model.hearing is not None
    for name, parameter in model.hearing.named_parameters():
        assert parameter.grad is not None and float(parameter.grad.abs().max()) > 1e-8, name
    for name, parameter in model.connector.named_parameters():
        assert parameter.grad is not None and float(parameter.grad.abs().max()) > 1e-8, name
    other = replace(batch, sound=replace(batch.sound, data=batch.sound.data.flip(0).roll(3, 0) * 0.3))
    assert float(gradients(stage, config, other)[1]["text"]) != float(shares["text"])


def test_every_sample_stands_in_its_row_with_all_its_media(workspace: Path, tmp_path: Path) -> None:
    config = hearing()
    built = built_stage("instruct", config)
    model: Any = built.model
    batch = first_batch(built, config, str(workspace), tmp_path, size=24)
    for media, width in ((batch.picture, model.picture_tokens), (batch.sound, model.sound_tokens)):
        for row, segment, start in zip(media.row, media.segment, media.start, strict=True):
            assert (batch.segment[row, start : start + width] == segment).all()
            assert (batch.labels[row, start : start + width] == -100).all()
    pictures = Counter(zip(batch.picture.row.tolist(), batch.picture.segment.tolist(), strict=True))
    assert max(pictures.values()) == 8, "two frames of each of four clips"
    assert batch.cut_tokens == 0


def test_who_cannot_hear_is_given_nothing_to_hear(workspace: Path, release: TrainingRelease, tmp_path: Path) -> None:
    deaf = MediaSpec(SPEC.preprocess, 8, 0)
    samples, reader = release.samples("train"), SampleReader(release)
    seeing, all_of_them = Pairs(samples, reader, deaf), Pairs(samples, reader, SPEC)
    sounds = sum(1 for at in range(len(all_of_them)) if all_of_them.read(at).media.pictures is None)
    assert sounds > 5
    assert len(seeing) == len(all_of_them) - sounds
    assert not seeing.media(np.arange(len(seeing)))[:, 1].any()
    whole = open_records(release, "record", "train", None)
    without = open_records(release, "record", "train", None, MediaLimits(hears=False))
    heard = int((whole.index["sounds"] > 0).sum())
    assert heard > 20
    assert (len(without.index), without.left_out) == (len(whole.index) - heard, whole.left_out + heard)
    config = settings(instruct={"pack_length": 640, "max_text_tokens": 500})
    batch = first_batch(built_stage("instruct", config), config, str(workspace), tmp_path, size=24)
    assert batch.sound.data is None


def examples(release: TrainingRelease, form: str, look: MediaLimits | None = None) -> dict[str, Example]:
    records = open_records(release, form, "train", None, look)
    source = Instructions(records, release.samples("train"), SampleReader(release), SPEC)
    read = [source.read(at) for at in range(len(source))]
    counts = source.media(np.arange(len(source)))
    for example, (pictures, sounds) in zip(read, counts.tolist(), strict=True):
        media = example.media
        assert (0 if media.pictures is None else len(media.pictures), int(media.sound is not None)) == (
            pictures,
            sounds,
        )
        assert sum(turn.text.count(MEDIA_PLACEHOLDER) for turn in example.turns) == pictures + sounds
    return {example.uid: example for example in read}


def same(ours_by_uid: dict[str, Example], theirs_by_uid: dict[str, Example]) -> bool:
    assert ours_by_uid.keys() == theirs_by_uid.keys()
    for name, example in ours_by_uid.items():
        assert example.turns == theirs_by_uid[name].turns
        for kind in ("pictures", "sound"):
            ours, theirs = getattr(example.media, kind), getattr(theirs_by_uid[name].media, kind)
            assert (ours is None) == (theirs is None)
            assert ours is None or torch.equal(ours, theirs)
    return True


def test_the_three_forms_are_one_conversation_and_base64_the_same(release: TrainingRelease, tmp_path: Path) -> None:
    of_records = examples(release, "record")
    embedded = open_training_release(str(published(tmp_path, "base64")), tmp_path / "cache")
    for form in FORMS:
        assert same(of_records, examples(release, form))
        assert same(of_records, examples(embedded, form))


def test_fewer_frames_are_taken_evenly_and_an_order_keeps_all_its_steps(release: TrainingRelease) -> None:
    whole = {form: examples(release, form) for form in FORMS}
    few = {form: examples(release, form, MediaLimits(frames=2)) for form in FORMS}
    assert same(few["record"], few["llava"]) and same(few["record"], few["chat"])
    counts: dict[str, set[int]] = {}
    for name, example in few["record"].items():
        if example.media.pictures is not None:
            counts.setdefault(name[33:], set()).add(len(example.media.pictures))
            pictures = whole["record"][name].media.pictures
            assert pictures is not None
            if name.endswith("-step_caption"):
                assert torch.equal(example.media.pictures, pictures[[0, 3]])
    assert counts["step_caption"] == counts["audio_visual_match"] == {2}
    assert counts["step_order"] == {5}
    assert counts["what_comes_next"] == {2, 3, 4}
    assert counts["caption"] == {1}


def test_records_that_have_no_room_in_a_row_are_left_out(
    workspace: Path, release: TrainingRelease, tmp_path: Path
) -> None:
    whole = open_records(release, "record", "train", None)
    few = open_records(release, "record", "train", None, MediaLimits(frames=2, pictures=4))
    tasks = Counter(few.record(at)["task"] for at in range(len(few.index)))
    assert tasks["step_order"] == 0 and tasks["what_comes_next"] > 10 and tasks["audio_visual_match"] > 10
    assert few.left_out - whole.left_out == len(whole.index) - len(few.index) > 3
    assert int(few.index["images"].max()) == 4
    narrow = {"pack_length": 26, "max_text_tokens": 20, "batch_size": 8, "steps": 2}
    config = settings(instruct=narrow)  # four columns a picture: five of them have no room
    batch = first_batch(built_stage("instruct", config), config, str(workspace), tmp_path, size=64)
    pictures = Counter(zip(batch.picture.row.tolist(), batch.picture.segment.tolist(), strict=True))
    assert max(pictures.values()) == 4


def test_the_index_is_compact_and_names_each_sample_once(release: TrainingRelease) -> None:
    assert RECORD.itemsize == 31
    records, samples = open_records(release, "record", "train", None), release.samples("train")
    assert len(records.rows) < 2 * len(records.index)
    for at in range(len(records.index)):
        record = records.record(at)
        paths = [record[name] for name in ("input_image", "reference_image") if record[name]]
        paths += [*(record["input_video"] or []), *([record["input_audio"]] if record["input_audio"] else [])]
        uids = list(dict.fromkeys(path.removeprefix("tar://")[:32] for path in paths))
        assert [row_uid(samples[row]) for row in records.rows_of(at)] == uids
