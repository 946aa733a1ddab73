"""Pairs and instruction records as training reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmdata.score.preprocess import Preprocess
from mmdata.workspace.layout import Workspace
from tests.support.made_release import Sample, jpeg, shard_of, write_release
from training.data.examples import Instructions, Pairs
from training.data.media_tensors import MediaSpec
from training.data.records import open_records
from training.data.sample_index import SAMPLE, TrainingRelease, open_training_release
from training.data.sample_reader import BadSample, SampleReader

SPEC = MediaSpec(Preprocess(size=(16, 16)), frames=4, audio_samples=8000)


def check_counts(source: Pairs | Instructions) -> None:
    """No example has more media than the packing of rows counts on; turns are the same without media."""
    readable = 0
    for index, (pictures, sounds) in enumerate(source.media(np.arange(len(source)))):
        try:
            example = source.read(index)
        except BadSample:
            continue
        readable += 1
        assert example.media.counts[0] <= pictures
        assert example.media.counts[1] <= sounds
        assert example.turns == source.turns(index)
    assert readable > len(source) / 2


def test_media_of_pairs_are_counted_before_they_are_read(mixed: Workspace, tmp_path: Path) -> None:
    release = open_training_release(str(mixed.root), tmp_path / "cache")
    check_counts(Pairs(release.samples("train"), SampleReader(release), SPEC))


def test_samples_that_a_stage_does_not_read_are_counted_by_what_they_hold() -> None:
    image, video, audio, document = (1 << bit for bit in range(4))
    samples = np.zeros(8, SAMPLE)
    samples["media"] = [image, audio, image | audio, document, 0, document, video, document | image]
    no_reader: Any = None
    deaf = MediaSpec(Preprocess(size=(16, 16)), frames=4, audio_samples=0)
    assert Pairs(samples, no_reader, deaf).left_out == {"document": 2, "audio": 1, "text": 1}
    hearing = MediaSpec(Preprocess(size=(16, 16)), frames=4, audio_samples=8, document_pictures=2)
    assert Pairs(samples, no_reader, hearing).left_out == {"text": 1}
    assert Pairs(samples[:3], no_reader, hearing).left_out == {}


def test_media_of_records_are_counted_before_they_are_read(instructed: TrainingRelease) -> None:
    records, samples = open_records(instructed, "record", "train", None), instructed.samples("train")
    check_counts(Instructions(records, samples, SampleReader(instructed), SPEC))


def test_a_caption_that_is_not_utf8_is_a_bad_sample(tmp_path: Path) -> None:
    workspace = write_release(tmp_path / "own", [Sample("cat", {"jpg": jpeg(1)})])
    (shard,) = [workspace.shards_dir / shard_of(workspace, Sample("cat", {}).uid)]
    shard.write_bytes(shard.read_bytes().replace(b"cat\0", b"\xff\xff\xff\0"))
    release = open_training_release(str(workspace.root), tmp_path / "cache")
    source = Pairs(release.samples("train"), SampleReader(release), SPEC)
    for read in (source.read, source.turns):
        with pytest.raises(BadSample, match="no caption"):
            read(0)
