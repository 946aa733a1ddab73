"""The readers of the stages: sources by weight, and limits on media that leave room for text in a row."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mmdata.workspace.layout import Workspace
from tests.support.own_data import in_record_form, write_list, write_pictures
from tests.support.tiny_run import built_stage, settings
from training.config import Data
from training.data.batch_readers import EmptySplit, PairReader, RowReader, Share
from training.data.row_layout import Layout
from training.data.sample_index import TrainingRelease
from training.data.training_data import TrainingData, open_training_data
from training.stages.stage_reader import CLIP_ROW_SHARE, make_reader, make_validation_reader, pictures_that_fit


@pytest.mark.parametrize(
    ("frames", "picture_tokens", "sound_tokens", "length", "fit"),
    [(8, 0, 0, 64, 8), (8, 49, 0, 1024, 8), (8, 64, 0, 512, 4), (8, 64, 100, 512, 2), (8, 256, 0, 256, 1)],
)
def test_frames_leave_half_of_a_row_to_words(
    frames: int, picture_tokens: int, sound_tokens: int, length: int, fit: int
) -> None:
    layout = Layout(picture_tokens, sound_tokens, length, length, packed=True, template=False)
    assert pictures_that_fit(frames, CLIP_ROW_SHARE, layout) == fit


@pytest.fixture
def own_file(tmp_path: Path) -> Path:
    """30 records of own pictures, 6 of which are held out."""
    names = write_pictures(tmp_path / "own", 30)
    return write_list(tmp_path / "own" / "own.json", [in_record_form(name) for name in names])


def reader_of(
    stage: Any, data: TrainingData, rank: int = 0, world: int = 1, split: Any = "train"
) -> PairReader | RowReader:
    config = settings()
    return make_reader(built_stage(stage, config), data, config, split, 8, Share(rank, world))


def epoch(reader: PairReader | RowReader, number: int = 0) -> list[str]:
    """The uids of an epoch, in the reader's order."""
    n = reader.order.n
    return [uid for consumed in range(number * n, (number + 1) * n, 8) for uid in reader[consumed].uids][:n]


@pytest.mark.parametrize("stage", ["align", "joint"])
def test_several_releases_are_read_by_weight(
    stage: str, mixed: Workspace, instructed: TrainingRelease, tmp_path: Path
) -> None:
    """Both made releases hold the same samples: one of weight 1 and one of weight 2 read each three times."""
    other = {"path": str(instructed.release.workspace.root), "weight": 2.0}
    data = open_training_data([str(mixed.root)], Data.model_validate({"sources": [other]}), tmp_path)
    reader = reader_of(stage, data)
    alone = Counter(epoch(reader_of(stage, TrainingData(data.releases[:1]))))
    assert alone.total() > 8
    assert Counter(epoch(reader)) == alone + alone + alone
    held_out = reader_of(stage, data, split="validation")
    assert held_out.order.n == len(held_out.source), "each held-out sample once, whatever the weights"


def test_own_records_are_mixed_with_those_of_a_release(
    instructed: TrainingRelease, own_file: Path, tmp_path: Path
) -> None:
    own = {"path": str(own_file), "weight": 0.5, "held_out": 0.2}
    paths = [str(instructed.release.workspace.root)]
    data = open_training_data(paths, Data.model_validate({"sources": [own]}), tmp_path)
    reader = reader_of("instruct", data)
    epochs = [epoch(reader, number) for number in range(2)]
    ours = [Counter(uid for uid in uids if uid.startswith("own.json:")) for uids in epochs]
    trained = data.own[0][0].counts["train"]
    assert sum(ours[0].values()) == round(trained / 2)
    assert len(ours[0] + ours[1]) == min(trained, 2 * round(trained / 2)), "the other half in the other epoch"
    assert len(epochs[0]) == reader.order.n > 2 * trained
    for consumed in (0, 8):
        whole = reader[consumed].uids
        of_ranks = [reader_of("instruct", data, rank, 2)[consumed].uids for rank in range(2)]
        assert sorted(uid for uids in of_ranks for uid in uids) == sorted(whole)
    config = settings()
    held_out = make_validation_reader(built_stage("instruct", config), data, config, 8, Share())
    assert held_out is not None
    assert len(held_out.source) > data.own[0][0].counts["validation"] > 0


def test_own_data_without_a_release_may_hold_nothing_out(own_file: Path, tmp_path: Path) -> None:
    config = settings()
    built = built_stage("instruct", config)
    for held_out in (0.0, 0.3):
        source = {"path": str(own_file), "held_out": held_out}
        data = open_training_data([], Data.model_validate({"sources": [source]}), tmp_path)
        assert len(epoch(make_reader(built, data, config, "train", 8, Share()))) == data.own[0][0].counts["train"]
        assert (make_validation_reader(built, data, config, 8, Share()) is None) == (held_out == 0)


def test_a_source_without_samples_for_the_stage_is_named(
    instructed: TrainingRelease, own_file: Path, tmp_path: Path
) -> None:
    drawn = write_list(tmp_path / "drawn.json", [{"instruction": "Draw.", "output": None}])
    data = open_training_data([str(own_file), str(drawn)], Data(), tmp_path)
    with pytest.raises(EmptySplit, match=r"one of the sources has no samples .*Remedy"):
        reader_of("instruct", data)
