"""Further scores are columns of their own, computed only for rows that lack them."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from mmdata.config import Network, Score
from mmdata.engine.stage_fingerprints import named_settings, stage_settings
from mmdata.errors import UserError
from mmdata.media.packaged_file import PackagedFile
from mmdata.samples import FEATURES
from mmdata.score import text_area
from mmdata.score.further_scores import score_fingerprints
from mmdata.score.preprocess import Preprocess
from mmdata.score.stage import score_part, score_slice
from mmdata.storage.tables import write_table
from tests.support.scoring import (
    PART,
    PartMaker,
    Sample,
    clip_sample,
    count_embedded,
    encode,
    open_clip_embeddings,
    photo,
    photo_samples,
    save_model,
)

SAMPLES = [
    *photo_samples(3),
    Sample("fetched but broken", b"not a picture"),
    Sample("never fetched"),
    Sample(None, encode(photo(41)), url="https://e.org/uncaptioned.jpg"),
    clip_sample("a clip", [encode(photo(42)), b"broken", encode(photo(43))], url="https://e.org/clip"),
]
WITH_PIXELS = [True, True, True, False, False, True, True]


@pytest.fixture
def other_folder(tmp_path: Path) -> Path:
    return save_model(tmp_path / "dfn", seed=9)


def with_scores(maker: PartMaker, **settings: object) -> Score:
    return maker.corpus.score.model_copy(update=settings)


def rows_of(maker: PartMaker, table: pa.Table) -> list[dict]:
    by_uid = {row["uid"]: row for row in table.to_pylist()}
    return [by_uid[sample.uid(number)] for number, sample in enumerate(SAMPLES)]


def test_a_network_scores_pairs_and_the_scorer_scores_nothing_again(
    maker: PartMaker, other_folder: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker.write([SAMPLES])
    score_part(maker.corpus, maker.workspace, PART)
    plain = maker.table()
    score = with_scores(maker, networks={"dfn": Network(model=f"local-dir:{other_folder}")})
    embedded = count_embedded(monkeypatch)
    corpus = maker.corpus.model_copy(update={"score": score})
    counts = score_part(corpus, maker.workspace, PART).counts
    table = maker.table()
    assert table.column_names == [*FEATURES.names, "score_dfn"]
    assert table.schema.field("score_dfn").type == pa.float32()
    assert table.select(FEATURES.names).equals(plain)
    assert (counts["score_dfn"], counts["score_dfn_made"]) == (4, 4)
    scores = [row["score_dfn"] for row in rows_of(maker, table)]
    assert [score is not None for score in scores] == [True, True, True, False, False, False, True]
    pictures = [encode(photo(n)) for n in (0, 1, 2, 42, 43)]
    captions = [*(f"a photograph of thing {n}" for n in range(3)), "a clip", "a clip"]
    cosines = np.multiply(*open_clip_embeddings(other_folder, pictures, captions)).sum(1)
    expected = [*cosines[:3], cosines[3:].mean()]
    np.testing.assert_allclose([score for score in scores if score is not None], expected, atol=2e-2)
    seen = embedded["images"]
    again = score_slice(maker.workspace, PART, score, "0000")
    assert again.counts["score_dfn_made"] == 0
    assert embedded["images"] == seen + 1  # the scorer tries the broken picture again; nothing else is looked at
    assert again.table.equals(table)


def test_another_network_under_the_name_scores_anew_and_a_removed_one_leaves_no_column(
    maker: PartMaker, other_folder: Path, tmp_path: Path
) -> None:
    maker.write([photo_samples(3)])
    third = save_model(tmp_path / "third", seed=11)
    tables = []
    for folder in (other_folder, third):
        score = with_scores(maker, networks={"dfn": Network(model=f"local-dir:{folder}")})
        result = score_slice(maker.workspace, PART, score, "0000")
        write_table(maker.workspace.table(PART, "features", "0000"), result.table)
        assert result.counts["score_dfn_made"] == 3
        tables.append(result.table)
    fingerprints = [score_fingerprints(table.schema.metadata)["dfn"] for table in tables]
    assert fingerprints[0] != fingerprints[1]
    assert tables[0]["score_dfn"] != tables[1]["score_dfn"]
    plain = score_slice(maker.workspace, PART, maker.corpus.score, "0000")
    assert plain.table.column_names == FEATURES.names and plain.counts["reused"] == 3
    assert b"further_scores" not in plain.table.schema.metadata


def test_scores_are_in_the_fingerprint_only_if_they_are_set(maker: PartMaker, other_folder: Path) -> None:
    maker.write([[]])
    part = maker.workspace.part(PART)

    def settings_of(**keys: object) -> str:
        corpus = maker.corpus.model_copy(update={"score": with_scores(maker, **keys)})
        return stage_settings(corpus, part, "features")

    plain = settings_of()
    assert settings_of(nsfw=False, text_area=False, networks={}) == plain
    network = {"dfn": Network(model=f"local-dir:{other_folder}")}
    assert len({plain, settings_of(nsfw=True), settings_of(text_area=True), settings_of(networks=network)}) == 4
    corpus = maker.corpus.model_copy(update={"score": with_scores(maker, nsfw=True)})
    added = named_settings(corpus, part, "features").items() - named_settings(maker.corpus, part, "features").items()
    assert added == {("score.nsfw", True)}


class Brightness:
    """A model of pictures that can be computed by hand; it counts what it sees."""

    name = "text_area"
    fingerprint = "brightness"
    preprocess = Preprocess((32, 32), resize_mode="squash")
    batch_size = 2

    def __init__(self) -> None:
        self.seen = 0

    def of_pictures(self, pixels: np.ndarray, sizes: list[tuple[int, int]]) -> np.ndarray:
        assert all(min(size) > 0 for size in sizes)
        self.seen += len(pixels)
        return pixels.mean((1, 2, 3), dtype=np.float64).astype(np.float32)

    def of_clip(self, scores: np.ndarray) -> float:
        return float(scores.max())


def test_growth_and_any_cut_into_slices_change_no_score_and_look_only_at_what_is_new(
    maker: PartMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scored(slices: list[list[Sample]]) -> tuple[dict[str, float | None], int]:
        model = Brightness()
        monkeypatch.setattr("mmdata.score.further_scores._picture_model", lambda name, threads: model)
        maker.write(slices)
        scores: dict[str, float | None] = {}
        for number in range(len(slices)):
            table = score_slice(maker.workspace, PART, with_scores(maker, text_area=True), f"{number:04d}").table
            write_table(maker.workspace.table(PART, "features", f"{number:04d}"), table)
            scores |= dict(zip(table["uid"].to_pylist(), table["score_text_area"].to_pylist(), strict=True))
        return scores, model.seen

    samples = [replace(sample, url=sample.url or f"https://e.org/own{n}.jpg") for n, sample in enumerate(SAMPLES)]
    twin = Sample("the same picture", samples[0].data, url="https://e.org/twin.jpg")
    whole, seen = scored([samples])
    assert [whole[sample.uid(n)] is not None for n, sample in enumerate(samples)] == WITH_PIXELS
    assert seen == 6  # of the clip two frames
    assert scored([samples])[1] == 0
    grown, seen = scored([[*samples, twin]])
    assert seen == 1
    assert {uid: grown[uid] for uid in whole} == whole and grown[twin.uid(7)] == whole[samples[0].uid(0)]
    assert scored([samples[:2], samples[2:]])[0] == whole
    changed = replace(samples[0], data=encode(photo(77)))
    assert scored([[changed, *samples[1:]]])[0] != whole


def test_a_missing_package_and_damaged_weights_are_told_with_a_remedy(
    maker: PartMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmdata.score.further_scores import further_scores

    for file, message in (
        (PackagedFile("rapidocr", "no_such_package", "x.onnx", "0" * 64, "scores"), r"pip install 'mmdata\[scores\]'"),
        (PackagedFile("numpy", "numpy", "__init__.py", "0" * 64, "scores"), "is not the pinned"),
    ):
        monkeypatch.setattr(text_area, "MODEL", file)
        with pytest.raises(UserError, match=message):
            further_scores(with_scores(maker, text_area=True), threads=3)


@pytest.mark.skipif(find_spec("rapidocr") is None, reason="mmdata[scores] is not installed")
def test_pictures_are_scored_by_the_packaged_models(maker: PartMaker) -> None:
    maker.write([SAMPLES])
    table = score_slice(maker.workspace, PART, with_scores(maker, nsfw=True, text_area=True), "0000").table
    assert table.column_names == [*FEATURES.names, "score_nsfw", "score_text_area"]
    for name in ("score_nsfw", "score_text_area"):
        values = [row[name] for row in rows_of(maker, table)]
        assert [value is not None for value in values] == WITH_PIXELS
        assert all(0 <= value <= 1 for value in values if value is not None)
    assert set(json.loads(table.schema.metadata[b"further_scores"])) == {"nsfw", "text_area"}
