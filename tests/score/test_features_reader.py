"""Features tables are judged by one rule, and name their scorer."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from mmdata.errors import DataError
from mmdata.score import stage
from mmdata.score.features_reader import read_scorer_mark, unsound_reason
from mmdata.score.scorer import ClipScorer
from mmdata.score.stage import score_part
from mmdata.storage.tables import write_table
from tests.support.scoring import PART, PartMaker, photo_samples, score_samples


def test_published_tables_that_lost_a_row_or_hold_nan_are_not_accepted(maker: PartMaker) -> None:
    maker.write([photo_samples(3)])
    score_part(maker.corpus, maker.workspace, PART)
    path, table = maker.workspace.table(PART, "features", "0000"), maker.table()
    slices = {"0000": maker.workspace.slice_stamp(PART, "features", "0000")}
    assert stage.refusal(maker.workspace, PART, slices) is None
    write_table(path, table.slice(1))
    assert "its uids are not those" in stage.refusal(maker.workspace, PART, slices)
    write_table(path, table.set_column(1, table.schema.field("clip_score"), pa.array([0.1, np.nan, 0.2], pa.float32())))
    assert "not finite" in stage.refusal(maker.workspace, PART, slices)


def test_the_scorer_of_a_table_is_read_from_its_footer(maker: PartMaker, scorer: ClipScorer) -> None:
    score_samples(maker, photo_samples(1))
    path, table = maker.workspace.table(PART, "features", "0000"), maker.table()
    assert read_scorer_mark(path) == (scorer.name, scorer.fingerprint)
    write_table(path, table.replace_schema_metadata(None))
    with pytest.raises(DataError, match=r"0000\.parquet: names no scorer\. Remedy"):
        read_scorer_mark(path)
    path.write_bytes(b"torn")
    with pytest.raises(DataError, match=r"0000\.parquet: cannot be read as a features table"):
        read_scorer_mark(path)


@pytest.mark.parametrize(
    ("scores", "reason"),
    [([0.5, None], None), ([1.0001, -1.0], None), ([math.nan, 0.1], "not finite"), ([1.5, 0.0], "between -1 and 1")],
)
def test_scores_must_be_cosines(scores: list[float | None], reason: str | None) -> None:
    features = pl.DataFrame({"uid": ["a", "b"], "clip_score": scores}, schema_overrides={"clip_score": pl.Float32})
    stated = unsound_reason(features, features["uid"])
    assert stated is None if reason is None else reason in (stated or "")


def test_rows_in_another_order_are_not_the_slices_own() -> None:
    features = pl.DataFrame({"uid": ["a", "b"], "clip_score": [0.1, 0.2]})
    assert unsound_reason(features, pl.Series("uid", ["b", "a"])) == "its uids are not those of the slice's rows"
