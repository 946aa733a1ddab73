"""The summary of named scores, and of what rules on them drop."""

from __future__ import annotations

import polars as pl

from mmdata.config import Filter
from mmdata.select.cuts import Cut
from mmdata.select.score_summary import density_rows, histograms, named_scores, score_rows, top_rows

TABLE = pl.LazyFrame(
    {
        "keep": [True, False, False, False, True],
        "reason": [None, "density", "balance:modality", "filter:top:loss", None],
        "cluster": pl.Series([1, 1, 1, 2, None], dtype=pl.Int32),
        "clip_score": [0.3, 0.2, 0.1, 0.2, None],
        "score_loss": pl.Series([-0.5, -0.25, None, -1.0, None], dtype=pl.Float32),
        "score_sim": pl.Series([0.25, 0.5, 0.75, 1.0, None], dtype=pl.Float32),
    }
)
RULES = Filter.model_validate(
    {
        "min_scores": {"sim": 0.25},
        "top": [{"score": "loss", "fraction": 0.5}, {"weights": {"loss": 1, "sim": 2}, "fraction": 0.9}],
    }
)
CUTS = {"top:loss": Cut(-0.5, 0, 0, ""), "top:loss+sim": Cut(0.125, 0, 0, "", [[0.0, 1.0], [0.0, 1.0]])}


def test_each_score_has_its_values_and_the_bound_that_decides() -> None:
    scores = named_scores(TABLE, RULES, CUTS)
    assert {name: (score.values.tolist(), score.threshold) for name, score in scores.items()} == {
        "loss": ([-0.5, -0.25, -1.0], -0.5),
        "sim": ([0.25, 0.5, 0.75, 1.0], 0.25),
    }
    assert score_rows(scores)[1] == {"score": "sim", "samples": 4, "mean": 0.625, "least that is kept": 0.25}
    drawn = histograms(scores)
    assert list(drawn) == ["loss", "sim"]
    assert b"Scores loss" in drawn["loss"].picture()


def test_top_fractions_are_told_with_their_weights_and_what_they_dropped() -> None:
    rows = top_rows(RULES, CUTS, {"filter:top:loss": 1})
    assert [row["weights"] for row in rows] == ["loss 1", "loss 1, sim 2"]
    assert [row["least that is kept"] for row in rows] == [-0.5, 0.125]
    assert [row["dropped by it first"] for row in rows] == [1, 0]


def test_clusters_that_lost_samples_to_pruning_are_told_before_and_after() -> None:
    assert density_rows(TABLE, 5) == [{"cluster": 1, "before": 3, "after": 2}]
