"""Which features are missing: exactly the samples that are read, and an estimate that one picture counts in once."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mmdata.errors import UserError
from training.data.feature_cache import FeatureTable, feature_key
from training.data.media_tensors import EncodedMedia, EncodedMedium
from training.data.missing_features import CHUNK_SAMPLES, FeaturePlan, MissingFeatures, plan_features, samples_read
from training.data.mixture import Mixture
from training.data.order import Order
from training.data.sample_reader import BadSample


class Pictures:
    """A source in which neighbours share a picture, and some samples are bad."""

    def __init__(self, samples: int, per_picture: int = 1, bad: tuple[int, ...] = ()) -> None:
        self._samples, self._per_picture, self._bad = samples, per_picture, bad

    def __len__(self) -> int:
        return self._samples

    def encoded_media(self, index: int) -> EncodedMedia:
        if index in self._bad:
            raise BadSample(str(index))
        name = str(index // self._per_picture).encode()
        return EncodedMedia([EncodedMedium(name, (name,), lambda: torch.ones(2))], None, release_id="r")


def reader_of(source: Pictures, order: Any = None) -> Any:
    return SimpleNamespace(source=source, order=order)


def missing(folder: Path, source: Pictures) -> MissingFeatures:
    return MissingFeatures(reader_of(source), {"picture": FeatureTable(folder)}, np.arange(len(source)))


def test_the_samples_of_all_epochs_of_a_mixture_are_read_and_no_others() -> None:
    orders = (Order(10, 1, 2, 2), Order(100, 2, 4, 4))
    mixture = Mixture(orders, (1.0, 0.1))
    reader = reader_of(Pictures(110), mixture)
    for samples in (7, 20, 50, 10_000):
        epochs = np.concatenate([mixture.pick(epoch, np.arange(20)).samples for epoch in range(-(-samples // 20))])
        assert samples_read(reader, samples).tolist() == sorted(set(epochs[:samples].tolist()))
    assert len(samples_read(reader, 20)) == 20, "a tenth of the large source"
    assert len(samples_read(reader, 10_000)) == 110


def test_instructions_about_one_picture_count_once(tmp_path: Path) -> None:
    source = Pictures(CHUNK_SAMPLES * 100, per_picture=4)
    plan = plan_features([missing(tmp_path, source)], {"picture": 1000}, tmp_path / "features")
    assert plan.counts == {"picture": CHUNK_SAMPLES * 25}
    assert plan.bytes == pytest.approx(plan.media * 1000, rel=0.05)
    assert plan.free_bytes > 0


def test_what_a_table_has_and_bad_samples_are_not_counted(tmp_path: Path) -> None:
    source = Pictures(40, bad=(3, 4))
    plan = plan_features([missing(tmp_path, source)], {"picture": 10}, tmp_path)
    assert plan.counts == {"picture": 38}
    table = FeatureTable(tmp_path)
    table.add([feature_key(str(number).encode()) for number in range(40)], torch.zeros(40, 5), "r")
    plan = plan_features([missing(tmp_path, source)], {"picture": 10}, tmp_path)
    assert plan.media == plan.bytes == 0


def test_a_bad_sample_is_replaced_by_the_next_and_each_medium_has_its_release(tmp_path: Path) -> None:
    found = missing(tmp_path, Pictures(6, bad=(1,)))[0]["picture"]
    assert len(found) == 5
    assert {entry.release_id for entry in found} == {"r"}
    assert found[0].medium.tolist() == [1, 1]


def test_a_disk_that_is_too_small_is_refused_with_what_it_would_take(tmp_path: Path) -> None:
    counts, sizes = {"picture": 1_000_000, "sound": 0}, {"picture": 512_000, "sound": 8}
    with pytest.raises(UserError, match=r"about 512\.04 GB \(1,000,000 x 512\.0 kB of picture\).* has 100\.00 GB free"):
        FeaturePlan(counts, sizes, tmp_path, 10**11).check_disk()
    FeaturePlan(counts, sizes, tmp_path, 10**12).check_disk()
