"""The pure parts of the training benchmark."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.__main__ import names
from benchmarks.speed.ours import our_config, speed_of
from benchmarks.speed.peers import captions
from benchmarks.speed.release import caption_words, write_release
from benchmarks.speed.sizes import Speed, align_size, joint_size, picture_tokens
from training.run import build_model


def test_a_speed_is_weighed_by_time_and_starts_at_the_first_line() -> None:
    lines = [
        (10.0, {"samples_per_s": 1.0, "mfu": 0.9, "data_wait": 0.9}),
        (11.0, {"samples_per_s": 100.0, "mfu": 0.5, "data_wait": 0.0}),
        (14.0, {"samples_per_s": 20.0, "mfu": 0.1, "data_wait": 0.4}),
    ]
    found = speed_of(lines)
    assert (found.work, found.seconds, found.padded) == (160.0, 4.0, 0.0)
    assert (found.mfu, found.data_wait) == pytest.approx((0.2, 0.3))


def test_tokens_count_where_there_are_tokens() -> None:
    line = {"samples_per_s": 1.0, "tokens_per_s": 50.0, "padded_tokens_per_s": 80.0, "mfu": None, "data_wait": 0.0}
    assert speed_of([(0.0, line), (2.0, line)]) == Speed(100.0, 2.0, 160.0, None, 0.0)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("quick", [True, False])
def test_sizes_divide_as_the_clock_needs(device: str, quick: bool) -> None:
    for stage, size in (("align", align_size(device, quick, 4)), ("joint", joint_size(device, quick, 4))):
        assert size.samples % size.batch == 0, "every batch is full"
        assert size.batch % size.peer_micro == 0
        assert (size.clip is None) == (device == "cuda" or (stage == "align" and not quick))
        assert our_config(size).data.workers == size.workers


def test_a_picture_takes_as_many_tokens_on_both_sides() -> None:
    size = joint_size("cpu", True, 2)
    model = build_model("joint", our_config(size)).model
    assert picture_tokens(size) == model.picture_tokens  # type: ignore[union-attr]


def test_captions_are_as_long_as_the_webs() -> None:
    words = caption_words(20_000, np.random.default_rng(0))
    assert np.median(words) == pytest.approx(9, abs=1)
    assert words.mean() == pytest.approx(12, abs=1)
    assert words.min() >= 3


def test_the_made_up_release_is_read_back(tmp_path: Path) -> None:
    write_release(tmp_path, 24, 0.5)
    found = captions(str(tmp_path))
    assert len(found) == 24
    assert len(set(found)) == 24


def test_packages_are_parts_and_no_benchmarks() -> None:
    assert {"data_worth", "training", "shards"} <= set(names())
    assert not {"worth", "speed", "harness"} & set(names())
