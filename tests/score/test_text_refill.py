"""Texts are measured again when their code changes, and nothing else is."""

from __future__ import annotations

import polars as pl
import pytest

from mmdata.engine import freshness, stage_fingerprints
from mmdata.score import feature_reuse, text_measures, text_refill
from mmdata.score.stage import score_part
from mmdata.score.text_refill import TEXT_KEY, has_present_texts
from mmdata.storage.tables import write_table
from tests.support.scoring import PART, PartMaker, Sample, photo_samples


@pytest.fixture
def older(maker: PartMaker) -> pl.DataFrame:
    """A part whose texts an older version of the code measured; the table as it ought to be."""
    maker.write([[*photo_samples(4), Sample("a text alone", kind="text"), Sample("lost", url="https://e.org/l.jpg")]])
    with pytest.MonkeyPatch.context() as patch:
        for module in (stage_fingerprints, feature_reuse, text_refill):
            patch.setattr(module, "TEXT_VERSION", 1)
        score_part(maker.corpus, maker.workspace, PART)
    expected = maker.table()
    path = maker.workspace.table(PART, "features", "0000")
    wrong = pl.DataFrame(expected).with_columns(lang=pl.lit("la"), n_words=pl.lit(99, pl.Int32)).to_arrow()
    metadata = {key: value for key, value in expected.schema.metadata.items() if key != TEXT_KEY.encode()}
    write_table(path, wrong.cast(expected.schema).replace_schema_metadata(metadata))
    return pl.DataFrame(expected)


def test_older_texts_are_measured_again_without_reading_a_medium(maker: PartMaker, older: pl.DataFrame) -> None:
    """The tar holds zeros, so a picture that is decoded has a problem."""
    for tar in (maker.workspace.part_dir(PART) / "media").glob("*.tar"):
        tar.write_bytes(bytes(tar.stat().st_size))
    part, stamp = maker.workspace.part(PART), maker.workspace.part_stamp(PART, "features")
    assert stamp is not None
    why = freshness.what_changed(maker.corpus, part, "features", stamp)
    assert why == f"code version of texts: 1 -> {stage_fingerprints.TEXT_VERSION}"
    report = score_part(maker.corpus, maker.workspace, PART)
    assert (report.counts["reused"], report.counts["pictures"]) == (4, 0)
    table = maker.table()
    assert pl.DataFrame(table).equals(older)
    assert has_present_texts({key.decode(): value.decode() for key, value in table.schema.metadata.items()})


def test_present_texts_of_reused_rows_are_not_measured_again(maker: PartMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    maker.write([photo_samples(3)])
    score_part(maker.corpus, maker.workspace, PART)
    maker.workspace.clear_slice_stamp(PART, "features", "0000")
    measured: list[str] = []
    monkeypatch.setattr(text_measures, "detect_languages", lambda captions: measured.extend(captions) or [])
    score_part(maker.corpus, maker.workspace, PART)
    assert measured == []
