"""The report of the features stage."""

from __future__ import annotations

import numpy as np
import polars as pl

from mmdata.score.score_report import language_table, spread_samples
from mmdata.score.stage import score_part
from tests.support.scoring import PART, PartMaker, Sample, encode, photo, photo_samples


def test_the_report_shows_figures_and_pictures_of_the_whole_range(maker: PartMaker) -> None:
    maker.write([photo_samples(15), photo_samples(5, 40)])
    report = score_part(maker.corpus, maker.workspace, PART)
    assert report.numbers["score_p10"] <= report.numbers["score_p50"] <= report.numbers["score_p90"]
    assert report.numbers["images_per_s"] > 0
    scores = [row["clip_score"] for row in report.tables["samples"]]
    assert len(scores) == 12 and scores == sorted(scores, reverse=True)
    assert {len(data) < 20_000 for data in report.images.values()} == {True}
    assert set(report.images) == {"score_histogram", "samples"}


def test_captions_in_the_report_are_one_plain_line(maker: PartMaker) -> None:
    maker.write([[Sample("a\x00b\n\n| [x](http://e.org) <script>" + "long " * 99, encode(photo(1)))]])
    [row] = score_part(maker.corpus, maker.workspace, PART).tables["samples"]
    assert "\n" not in row["caption"] and "\x00" not in row["caption"] and len(row["caption"]) <= 120


def test_the_sample_of_a_report_does_not_depend_on_row_order() -> None:
    frame = pl.DataFrame({"uid": [f"{n:032x}" for n in range(500)], "clip_score": np.linspace(-1, 1, 500)})
    chosen = spread_samples(frame, 12, seed=3)
    assert chosen.equals(spread_samples(frame.sample(fraction=1, shuffle=True, seed=1), 12, seed=3))
    assert not chosen.equals(spread_samples(frame, 12, seed=4))
    assert chosen["clip_score"][0] > 0.8 and chosen["clip_score"][-1] < -0.8
    assert spread_samples(frame.head(3), 12, 0).height == 3
    assert spread_samples(frame.clear(), 12, 0).height == 0


def test_languages_are_counted_and_the_rare_ones_joined() -> None:
    table = language_table(pl.Series("lang", ["en"] * 5 + ["de"] * 3 + [None] * 2 + [f"x{n:02d}" for n in range(20)]))
    assert table[:3] == [{"lang": "en", "samples": 5}, {"lang": "de", "samples": 3}, {"lang": "-", "samples": 2}]
    assert table[-1] == {"lang": "other", "samples": 11} and sum(row["samples"] for row in table) == 30
