"""What a selection did, read back from a written table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from upath import UPath

from mmdata.config import Filter
from mmdata.samples import SELECTION, table_of
from mmdata.select.cuts import Cut
from mmdata.select.rates import Rates, write_rates
from mmdata.select.selection_summary import TOP_CONCEPTS, Summary, summarise
from mmdata.storage.tables import write_table


def row(number: int, reason: str | None = None, **given: Any) -> dict[str, Any]:
    """A row of the selection table, kept where it has no reason."""
    kept = reason is None
    plain = {
        "uid": f"{number:032x}",
        "part": "web-000000",
        "slice": "0000",
        "copies": 1,
        "signature": "image+text",
        "clip_score": 0.25,
        "keep": kept,
        "reason": reason,
        "concept": "a cat",
        "rate": 1.0,
        "repeats": int(kept),
        "split": "train" if kept else None,
    }
    return plain | given


ROWS = [
    row(0, copies=3),
    row(1, repeats=4, concept="a dog", signature="text", clip_score=None),
    row(2, split="validation"),
    row(3, "balance:modality", clip_score=0.5),
    row(4, "duplicate:url"),
    row(5, "filter:clip_score", clip_score=float("nan")),
    row(6, "duplicate:url", concept=None),
    row(7, concept=None),
]


def summary_of(folder: Path, rows: list[dict[str, Any]], rules: Filter, cut: Cut | None = None) -> Summary:
    write_table(UPath(folder / "selection.parquet"), table_of(rows, SELECTION))
    write_rates(UPath(folder / "rates.json"), Rates("s", cuts={"top_fraction": cut} if cut else {}))
    return summarise(UPath(folder), rules)


def test_a_summary_counts_rows_reasons_and_what_balancing_changed(tmp_path: Path) -> None:
    summary = summary_of(tmp_path, ROWS, Filter())
    assert summary.counts == {"rows": 10, "uids": 8, "kept": 4, "dropped": 4, "repeats": 7, "validation": 1}
    assert summary.reasons == {"balance:modality": 1, "duplicate:url": 2, "filter:clip_score": 1}
    assert summary.signatures == {"image+text": (4, 3), "text": (1, 4)}
    assert summary.concepts == {"a cat": (3, 2), "a dog": (1, 4)}
    assert np.sort(summary.scores).tolist() == [0.25] * 5 + [0.5]
    assert summary.numbers() == {"kept_share": 0.5, "repeat_factor": 1.75}
    assert summary.tables()["signatures"][1] == {"signature": "text", "before": 1, "after": 4}


def test_the_threshold_is_that_of_the_rule_or_of_the_cut(tmp_path: Path) -> None:
    cut = Cut(0.125, 1, 2, "a scorer")
    assert summary_of(tmp_path, ROWS, Filter()).threshold is None
    assert summary_of(tmp_path, ROWS, Filter(top_fraction=0.5), cut).numbers()["clip_score_threshold"] == 0.125
    assert summary_of(tmp_path, ROWS, Filter(min_clip_score=0.2)).threshold == 0.2
    assert summary_of(tmp_path, ROWS, Filter(preset="laion2b")).threshold == 0.28


def test_a_selection_of_nothing_has_shares_of_zero_and_no_plots(tmp_path: Path) -> None:
    summary = summary_of(tmp_path, [], Filter())
    assert set(summary.counts.values()) == {0}
    assert summary.numbers() == {"kept_share": 0.0, "repeat_factor": 0.0}
    assert summary.images("a scorer") == {}


def test_only_the_most_frequent_concepts_are_listed(tmp_path: Path) -> None:
    concepts = [f"c{number:02d}" for number in range(TOP_CONCEPTS + 5)]
    rows = [row(number, concept=name) for number, name in enumerate([*concepts, concepts[-1]])]
    listed = summary_of(tmp_path, rows, Filter()).tables()["top concepts"]
    assert len(listed) == TOP_CONCEPTS
    assert listed[0] == {"concept": concepts[-1], "before": 2, "after": 2}
    assert [line["concept"] for line in listed[1:]] == concepts[: TOP_CONCEPTS - 1]


@pytest.mark.parametrize("scorer", ["ViT-B-32", "ViT-L-14"])
def test_the_plots_are_pictures_and_name_the_scorer(tmp_path: Path, scorer: str) -> None:
    images = summary_of(tmp_path, ROWS, Filter()).images(scorer)
    assert set(images) == {"scores", "modalities", "long tail"}
    assert all(image.startswith(b"<svg") for image in images.values())
    assert scorer.encode() in images["scores"]
