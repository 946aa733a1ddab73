"""Fitting the projections repeats to the bit, and stops where a held-out source says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from mmdata.demo.scorer import fit, measure, projection, quality
from mmdata.demo.scorer.clip_art import CaptionedPicture
from mmdata.demo.scorer.frozen_features import SourceFeatures, picture_features
from mmdata.demo.scorer.projection import train, training_pictures, write_projections
from mmdata.score import offline
from mmdata.score.offline import IMAGENET_CLASSES, TEXT_WIDTH

SETTINGS = fit.Settings(dim=64, steps=4, batch=8)


@pytest.fixture(scope="module")
def pictures() -> list[CaptionedPicture]:
    return next(training_pictures(None))[300:316]


@pytest.fixture(scope="module")
def source(parts, pictures, tmp_path_factory) -> SourceFeatures:
    return picture_features(parts[0], parts[1], pictures, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def classes() -> np.ndarray:
    """In place of the embeddings of the class names, which take long."""
    rows = np.random.default_rng(0).normal(size=(IMAGENET_CLASSES, TEXT_WIDTH)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def start(parts, classes, source) -> dict[str, torch.Tensor]:
    """The projections before the first contrastive step."""
    state, steps = train([source], classes, replace(SETTINGS, steps=0), parts[0], parts[2])
    assert steps == 0
    return state


def test_training_repeats_to_the_bit_and_moves_off_its_start(tmp_path, parts, classes, pictures, source, start):
    (state, steps), (again, _) = (train([source], classes, SETTINGS, parts[0], parts[2]) for _ in range(2))
    assert steps == SETTINGS.steps
    assert all(torch.equal(state[name], again[name]) for name in state)
    assert not torch.equal(state["visual.head.features.weight"], start["visual.head.features.weight"])
    file = tmp_path / "new.safetensors"
    assert len({write_projections(tensors, file, [source], SETTINGS, steps) for tensors in (state, again)}) == 1

    pairs = measure.embed_pairs(offline.build(file), ((p.read(), p.captions[0], "") for p in pictures))
    assert pairs.images.shape == (len(pictures), SETTINGS.dim)
    assert quality.measure(pairs.images, pairs.texts, pairs.captions).auc > 0.9  # it was trained on these pictures


def test_training_stops_where_a_held_out_source_says(parts, classes, source, start):
    held_out = replace(source, source=projection.HELD_OUT_SOURCE)
    harmful = replace(SETTINGS, check_steps=1, learning_rate=1.0)
    state, steps = train([source, held_out], classes, harmful, parts[0], parts[2])
    assert steps == 0
    assert all(torch.equal(state[name], start[name]) for name in start)
