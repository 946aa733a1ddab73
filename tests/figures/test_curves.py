"""The curve of a training."""

from __future__ import annotations

import io
import math

import numpy as np
from PIL import Image

from mmdata.figures.curves import MAX_POINTS, loss_curve, thinned
from mmdata.figures.plots import MAX_BYTES


def opened(data: bytes) -> Image.Image:
    assert len(data) < MAX_BYTES
    picture = Image.open(io.BytesIO(data))
    assert picture.format == "PNG"
    return picture.convert("RGB")


def test_a_long_noisy_log_stays_under_the_limit() -> None:
    numbers = np.random.default_rng(0).random(20_000)
    log = [{"kind": "train", "step": n, "loss": 3 + noise} for n, noise in enumerate(numbers)]
    log += [{"kind": "validation", "step": n, "val/loss": 3.0} for n in range(0, 20_000, 100)]
    assert opened(loss_curve(log, "align: loss")).width > 400


def test_nothing_and_what_is_no_number_are_drawn_as_nothing() -> None:
    nothing = loss_curve([], "t")
    opened(nothing)
    assert loss_curve([{"kind": "train", "step": 1, "loss": math.nan}], "t") == nothing


def test_thinning_keeps_both_ends() -> None:
    points = [(n, float(n)) for n in range(5000)]
    assert thinned(points[:10]) == points[:10]
    kept = thinned(points)
    assert (len(kept), kept[0], kept[-1]) == (MAX_POINTS, points[0], points[-1])
