"""Pairs of a release without tables: read from its shards by the scorer, once a shard."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from upath import UPath

from mmdata.config import Score
from mmdata.errors import DataError
from mmdata.releases.manifest import open_release
from mmdata.score.preprocess import Preprocess
from tests.support.made_release import Sample, mixed_samples, write_release
from training.compare import shard_pairs
from training.compare.shard_pairs import read_shard_pairs

SCORE = Score(model="demo", pretrained=None)


class StandIn:
    """Embeds a picture by its mean colour."""

    name, fingerprint, dim, preprocess = "stand-in", "5ca1e", 3, Preprocess((8, 8))
    pictures = 0

    def embed_images(self, pixels: np.ndarray) -> np.ndarray:
        self.pictures += len(pixels)
        return pixels.mean((1, 2)).astype(np.float32) / 255

    def embed_texts(self, captions: list[str]) -> np.ndarray:
        return np.array([[len(caption), 1.0, 0.0] for caption in captions], np.float32)


@pytest.fixture
def scorer(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    stand_in = StandIn()
    monkeypatch.setattr(shard_pairs, "load_scorer", lambda score: stand_in)
    return stand_in


class NoCaptions:
    def embed(self, captions: object) -> np.ndarray:
        raise AssertionError("every caption has a vector")


def test_pictures_and_clips_are_pairs_once_whatever_their_copies(scorer: StandIn, tmp_path: Path) -> None:
    samples = mixed_samples()
    workspace = write_release(tmp_path / "made", samples)
    found = read_shard_pairs(open_release(workspace.root), SCORE, UPath(tmp_path / "cache"))
    readable = [one for one in samples if one.signature in ("image+text", "text+video", "audio+text+video")]
    broken = {one.uid for one in readable if one.media.get("jpg", b"").endswith(b"no picture")}
    assert set(found.frame["uid"]) == {one.uid for one in readable} - broken
    assert found.frame["caption"].null_count() == 0
    vectors = found.vectors(found.frame, NoCaptions())
    assert vectors.has_both.all()
    assert vectors.image.shape == (len(found.frame), 3)


def test_shards_that_were_embedded_are_not_embedded_again(scorer: StandIn, tmp_path: Path) -> None:
    samples = [one for one in mixed_samples() if one.signature == "image+text"]
    first = write_release(tmp_path / "first", samples[:16])
    read_shard_pairs(open_release(first.root), SCORE, UPath(tmp_path / "cache"))
    before = scorer.pictures
    read_shard_pairs(open_release(first.root), SCORE, UPath(tmp_path / "cache"))
    assert scorer.pictures == before
    second = write_release(tmp_path / "second", samples)  # begins with the same shard
    read_shard_pairs(open_release(second.root), SCORE, UPath(tmp_path / "cache"))
    assert before < scorer.pictures < before + len(samples)


def test_a_damaged_shard_is_named(scorer: StandIn, tmp_path: Path) -> None:
    workspace = write_release(tmp_path / "made", [Sample("a", mixed_samples()[0].media)])
    shard = next(Path(workspace.shards_dir.path).iterdir())
    shard.write_bytes(bytes(shard.stat().st_size))
    with pytest.raises(DataError, match=shard.name):
        read_shard_pairs(open_release(workspace.root), SCORE, UPath(tmp_path / "cache"))
