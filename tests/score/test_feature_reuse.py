"""A refresh reuses features that still hold, and measures everything else again."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmdata.config import Score, Select
from mmdata.config.load import parse_corpus
from mmdata.engine.freshness import lacks_text_vectors
from mmdata.errors import UserError
from mmdata.media.flac import SAMPLE_RATE, flac
from mmdata.score.stage import score_part, score_slice
from mmdata.stage import add_counts
from mmdata.storage.tables import read_table, write_table
from tests.support.scoring import (
    PART,
    PartMaker,
    Sample,
    clip_sample,
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

    def refresh(after: list[Sample], **sections: object) -> tuple[dict[str, int], dict[str, int]]:
        maker.write([[*photo_samples(5), Sample("late", url="https://e.org/late.jpg"), Sample("bad", b"bad")]])
        score_part(maker.corpus, maker.workspace, PART)
        maker.write([after])
        embedded = count_embedded(monkeypatch)
        return dict(score_part(maker.corpus.model_copy(update=sections), maker.workspace, PART).counts), embedded

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
    vectors = ("clip_score", "embedding", "text_embedding")
    assert a.drop(vectors).equals(b.drop(vectors))
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


def needs_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Select, "needs_text_embeddings", property(lambda self: True))


def forget_text_embeddings(maker: PartMaker, slice_names: Sequence[str]) -> None:
    """Make tables and stamps as they were before the tables had the column."""
    for name in slice_names:
        path = maker.workspace.table(PART, "features", name)
        write_table(path, read_table(path).drop_columns("text_embedding"))
        stamp = maker.workspace.slice_stamp(PART, "features", name)
        counts = {key: count for key, count in stamp.counts.items() if not key.startswith("text_")}
        maker.workspace.write_slice_stamp(PART, "features", name, replace(stamp, counts=counts))
    part = maker.workspace.part_stamp(PART, "features")
    stamps = [maker.workspace.slice_stamp(PART, "features", name) for name in part.slices]
    counts = add_counts(stamp.counts for stamp in stamps)
    maker.workspace.write_part_stamp(PART, "features", replace(part, counts=counts))


MIXED_SAMPLES = [
    *photo_samples(7),
    Sample("fetched but broken", b"not a picture"),
    Sample("never fetched"),
    Sample(None, encode(photo(31))),
    Sample("a photograph of thing 2", encode(photo(32)), url="https://e.org/twin.jpg"),
    clip_sample("a clip of things", [encode(photo(33)), encode(photo(34))]),
]


def test_tables_without_text_embeddings_are_up_to_date_until_the_vectors_are_needed(
    maker: PartMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker.write([photo_samples(3), photo_samples(2, 9)])
    score_part(maker.corpus, maker.workspace, PART)
    forget_text_embeddings(maker, ["0000"])
    stamp = maker.workspace.part_stamp(PART, "features")
    assert not lacks_text_vectors(maker.corpus, stamp)
    assert score_part(maker.corpus, maker.workspace, PART).slices_done == 0
    needs_texts(monkeypatch)
    stamp = maker.workspace.part_stamp(PART, "features")
    assert lacks_text_vectors(maker.corpus, stamp)
    report = score_part(maker.corpus, maker.workspace, PART)
    assert (report.slices_done, report.slices_reused, report.counts["text_filled"]) == (1, 1, 3)
    stamp = maker.workspace.part_stamp(PART, "features")
    assert not lacks_text_vectors(maker.corpus, stamp)
    assert score_part(maker.corpus, maker.workspace, PART).slices_done == 0


def test_text_embeddings_are_filled_in_as_one_pass_gives_them_without_looking_at_pictures(
    maker: PartMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound_samples = [sample for sample in MIXED_SAMPLES if sample.data != b"not a picture"]
    maker.write([sound_samples])
    score_part(maker.corpus, maker.workspace, PART)
    whole = maker.table()
    with_score = [score is not None for score in whole["clip_score"].to_pylist()]
    assert [vector is not None for vector in whole["text_embedding"].to_pylist()] == with_score
    assert sum(with_score) == 9
    forget_text_embeddings(maker, ["0000"])
    needs_texts(monkeypatch)
    embedded = count_embedded(monkeypatch)
    counts = score_part(maker.corpus, maker.workspace, PART).counts
    assert embedded == {"images": 0, "texts": 8}
    assert (counts["pictures"], counts["text_filled"], counts["text_embedded"]) == (0, 9, 9)
    assert maker.table().equals(whole, check_metadata=True)


@given(
    lacking=st.lists(st.booleans(), min_size=len(MIXED_SAMPLES), max_size=len(MIXED_SAMPLES)),
    cut=st.integers(1, len(MIXED_SAMPLES)),
    grown_by=st.integers(0, 3),
)
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_state_of_the_text_embeddings_ends_as_one_pass_does(
    tmp_path_factory: pytest.TempPathFactory, tiny: Score, lacking: list[bool], cut: int, grown_by: int
) -> None:
    """Some rows lack their vector, the slices are cut anywhere, and rows were fetched since."""
    maker = PartMaker(tmp_path_factory.mktemp("any"), tiny)
    cuts = [MIXED_SAMPLES[:cut], MIXED_SAMPLES[cut:]]
    names = ("0000", "0001")
    maker.write(cuts)
    whole_tables = [score_slice(maker.workspace, PART, tiny, name).table for name in names]
    maker.write([cuts[0], [replace_data(s) if n < grown_by else s for n, s in enumerate(cuts[1])]])
    for name in names:
        table = score_slice(maker.workspace, PART, tiny, name).table
        place, field = table.schema.get_field_index("text_embedding"), table.schema.field("text_embedding")
        kept = pc.if_else(pa.array(lacking[: len(table)], pa.bool_()), None, pa.array(range(len(table)), pa.int64()))
        table = table.set_column(place, field, table["text_embedding"].take(kept))
        write_table(maker.workspace.table(PART, "features", name), table)
    maker.write(cuts)
    for name, whole_table in zip(names, whole_tables, strict=True):
        filled = pl.DataFrame(score_slice(maker.workspace, PART, tiny, name).table)
        whole = pl.DataFrame(whole_table)
        assert filled["text_embedding"].is_null().equals(whole["text_embedding"].is_null())
        assert filled["text_embedding"].is_null().equals(whole["clip_score"].is_null())
        # another batch may round a number of float32 to another one of float16
        vectors = [
            np.stack([v for v in t["text_embedding"] if v is not None] or [np.zeros(1)]) for t in (filled, whole)
        ]
        np.testing.assert_allclose(*vectors, atol=1e-3)


def replace_data(sample: Sample) -> Sample:
    """The sample before it was fetched."""
    return replace(sample, data=None, members={})


def test_text_embeddings_that_are_not_to_be_kept_are_not_written(maker: PartMaker) -> None:
    maker.write([photo_samples(3)])
    score = maker.corpus.score.model_copy(update={"text_embeddings": False})
    frugal = maker.corpus.model_copy(update={"score": score})
    counts = score_part(frugal, maker.workspace, PART).counts
    assert (counts["scored"], counts["text_embedded"]) == (3, 0)
    assert maker.table()["text_embedding"].null_count == 3
    assert score_part(maker.corpus, maker.workspace, PART).slices_done == 0  # nothing reads the vectors yet


def test_a_selection_that_needs_vectors_which_are_not_kept_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    needs_texts(monkeypatch)
    source = {"name": "web", "kind": "laion", "files": "x"}
    with pytest.raises(UserError, match=r"score\.text_embeddings: true"):
        parse_corpus({"workspace": "w", "sources": [source], "score": {"text_embeddings": False}})
