"""A refresh reuses features that still hold, and measures everything else again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mmdata.config import Score
from mmdata.media.flac import SAMPLE_RATE, flac
from mmdata.score.stage import score_part
from tests.support.scoring import (
    PART,
    PartMaker,
    Sample,
    count_embedded,
    encode,
    photo,
    photo_samples,
    save_model,
    score_samples,
)

pytest.importorskip("av", reason="mmdata[video] is not installed")
pytest.importorskip("onnxruntime", reason="mmdata[video] is not installed")


@pytest.fixture
def refreshed(
    maker: PartMaker, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[dict[str, int], dict[str, int]]]:
    """Scores one slice, changes it, scores again; gives the second run's counts, and what it embedded of the model."""

    def refresh(after: list[Sample], **settings: object) -> tuple[dict[str, int], dict[str, int]]:
        maker.write([[*photo_samples(5), Sample("late", url="https://e.org/late.jpg"), Sample("bad", b"bad")]])
        score_part(maker.corpus, maker.workspace, PART)
        maker.write([after])
        embedded = count_embedded(monkeypatch)
        return dict(score_part(maker.corpus.model_copy(update=settings), maker.workspace, PART).counts), embedded

    return refresh


LATE = Sample("late", encode(photo(60)), url="https://e.org/late.jpg")


def test_a_refresh_scores_only_what_was_fetched_since(
    refreshed: Callable, maker: PartMaker, tmp_path: Path, tiny: Score
) -> None:
    after = [*photo_samples(5), LATE, Sample("bad", b"bad")]
    counts, embedded = refreshed(after)
    assert (counts["reused"], counts["pictures"], counts["scored"], counts["rows"]) == (5, 2, 6, 7)
    assert embedded == {"images": 2, "texts": 2}  # the late one, and the broken one that is tried again
    other = PartMaker(tmp_path / "other", tiny)
    other.write([after])
    score_part(other.corpus, other.workspace, PART)
    a, b = (pl.DataFrame(m.table()) for m in (maker, other))
    assert a.drop("clip_score", "embedding").equals(b.drop("clip_score", "embedding"))
    scores = [table["clip_score"].fill_null(9).to_numpy() for table in (a, b)]
    np.testing.assert_allclose(*scores, atol=1e-5)
    assert maker.table().schema.metadata == other.table().schema.metadata


def test_a_refresh_scores_changed_bytes_again(refreshed: Callable) -> None:
    after = photo_samples(5)
    after[2] = Sample(after[2].caption, encode(photo(90)), url=after[2].url)
    counts, _ = refreshed(after)
    assert (counts["reused"], counts["pictures"]) == (4, 1)


def test_a_refresh_drops_what_is_no_longer_there(refreshed: Callable) -> None:
    gone = photo_samples(5)
    gone[1] = Sample(gone[1].caption, url=gone[1].url)
    counts, _ = refreshed(gone)
    assert (counts["reused"], counts["scored"], counts["without_media"]) == (4, 4, 1)


def test_another_scorer_keeps_nothing(refreshed: Callable, tmp_path: Path) -> None:
    folder = save_model(tmp_path / "second", seed=9)
    counts, _ = refreshed(photo_samples(5), score=Score(model=f"local-dir:{folder}", device="cpu"))
    assert (counts["reused"], counts["pictures"]) == (0, 5)


def test_pictures_stored_by_other_settings_are_scored_again(maker: PartMaker) -> None:
    from mmdata.storage.tables import read_table, write_table

    maker.write([photo_samples(3), photo_samples(2, 9)])
    score_part(maker.corpus, maker.workspace, PART)
    path = maker.workspace.table(PART, "media", "0000")
    write_table(path, read_table(path).replace_schema_metadata({"mmdata.settings": "image_size 512"}))
    maker.workspace.clear_slice_stamp(PART, "features", "0000")
    maker.workspace.clear_slice_stamp(PART, "features", "0001")
    assert score_part(maker.corpus, maker.workspace, PART).counts["reused"] == 2


def test_two_scorers_leave_two_marks(maker: PartMaker, tmp_path: Path) -> None:
    maker.write([photo_samples(2)])
    score_part(maker.corpus, maker.workspace, PART)
    first = json.loads(maker.table().schema.metadata[b"scorer"])
    folder = save_model(tmp_path / "second", seed=9)
    other = maker.corpus.model_copy(update={"score": Score(model=f"local-dir:{folder}", device="cpu")})
    score_part(other, maker.workspace, PART)
    second = json.loads(maker.table().schema.metadata[b"scorer"])
    assert first["fingerprint"] != second["fingerprint"] and second["name"] == "local-dir:second"


def test_what_was_measured_is_kept_as_long_as_the_bytes_are_the_same(maker: PartMaker, said: np.ndarray) -> None:
    seconds = len(said) / SAMPLE_RATE
    sound = Sample("wash", kind="audio", members={"flac": flac(said)}, media={"audio_s": seconds, "sha256": "a" * 64})
    picture = Sample("a picture", encode(photo(1)))
    first = score_samples(maker, [sound, picture])
    maker.workspace.clear_slice_stamp(PART, "features", "0000")
    maker.workspace.clear_part_stamp(PART, "features")
    report = score_part(maker.corpus, maker.workspace, PART)
    assert report.counts["reused"] == 2
    features = maker.features()
    assert [features[row["uid"]] for row in first] == first
