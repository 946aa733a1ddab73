"""The cost of a balance, told before it is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from upath import UPath

from mmdata.config import Select
from mmdata.releases.draft import read_draft
from mmdata.select.balance_cost import BalanceCost, balance_cost, cut_warnings
from mmdata.select.stage import select_samples
from tests.support.selecting import build, corpus_for, sample, selection

COLUMNS = {"signature": pl.String, "keep": pl.Boolean, "reason": pl.String}
COUNTS = {"image+text": 900, "text": 15}


def selected(folder: Path, counts: dict[str, int] = COUNTS, concepts: int = 0) -> UPath:
    """The selection of a release that kept all."""
    rows = [(name, True, None) for name, rows in counts.items() for _ in range(rows)]
    rows += [("image+text", False, "balance:concept")] * concepts + [("text", False, "duplicate:text")] * 4
    pl.DataFrame(rows, schema=COLUMNS, orient="row").write_parquet(folder / "selection.parquet")
    return UPath(folder)


def cost_of(folder: Path, balance: dict[str, Any], **more: Any) -> BalanceCost:
    select = Select.model_validate({"balance": balance, **more})
    cost = balance_cost(select, selected(folder), "1234")
    assert cost is not None
    return cost


def test_the_line_says_what_is_kept_and_what_each_signature_becomes(tmp_path: Path) -> None:
    cost = cost_of(tmp_path, {"max_ratio": 3, "tail_share": 0.01})
    assert cost.line() == "balance would keep 60 of 915 samples (6.6%): image+text 900 -> 45; text 15 -> 15"
    assert "drops 855 of 915 samples (93.4%). Remedy" in cost.cut[0]
    kind = cost_of(tmp_path, {})
    assert kind.line() == (
        "balance would keep 915 of 915 samples (100.0%), 951 with copies: image+text 900 -> 900; text 15 -> 51"
    )
    assert (kind.cut, kind.shortfalls) == ((), ())


def test_a_mix_that_is_not_met_is_told_with_remedies_that_help(tmp_path: Path) -> None:
    mix = {"image+text": 0.8, "text": 0.2}
    cost = cost_of(tmp_path, {"mix": mix})
    assert cost.signatures == {"image+text": (900, 717, 717), "text": (15, 15, 60)}
    assert cost.shortfalls[0].startswith(
        "select.balance.mix asks for 20.0% `text` and gets 7.7%: what there is comes 4 "
    )
    for keys, more in (
        ({"mix": {"image+text": 0.93, "text": 0.07}}, {}),
        ({"mix": mix}, {"oversample": {"max_repeats": 15}}),
        ({"mix": mix, "max_loss": 0.8}, {}),
    ):
        assert cost_of(tmp_path, keys, **more).shortfalls == ()


def test_a_mix_that_cannot_be_had_says_why(tmp_path: Path) -> None:
    cost = cost_of(tmp_path, {"mix": {"audio+text": 1.0}})
    assert cost.signatures == {}
    assert "there is none of it among 915 samples. Remedy" in cost.shortfalls[0]


def test_samples_that_concepts_dropped_are_counted_and_named(tmp_path: Path) -> None:
    folder = selected(tmp_path, {"image+text": 10}, concepts=5)
    cost = balance_cost(Select.model_validate({"balance": {"concepts": "c.txt"}}), folder, "1234")
    assert cost is not None
    assert cost.line() == (
        "balance would keep 15 of 15 samples (100.0%): image+text 15 -> 15; concepts dropped 5 more in 1234"
    )


def test_before_the_first_selection_nothing_is_known(tmp_path: Path) -> None:
    assert balance_cost(Select(), UPath(tmp_path), "1234") is None


@pytest.mark.parametrize("by", ["tokens", "seconds"])
def test_what_is_foretold_in_other_units_is_what_the_next_selection_does(tmp_path: Path, by: str) -> None:
    samples = [sample(n, kind="video", duration_s=3.0, start_s=0.0, end_s=3.0, phash=n << 20) for n in range(60)]
    samples += [sample(500 + n, kind="audio", audio_s=2.0, phash=None) for n in range(12)]
    plain = {"dedup": {"phash_bits": None, "semantic_eps": None}}
    corpus = corpus_for(tmp_path, {**plain, "balance": {"max_ratio": None}})
    workspace = build(corpus, {"web-000000": [samples]})
    select_samples(corpus, workspace)
    folder = workspace.release_dir(read_draft(workspace).release_id)
    asked = {**plain, "balance": {"by": by, "alpha": 0.5, "size": 100}}
    unknown = balance_cost(Select.model_validate(asked), folder, "1234")
    assert unknown is not None
    assert unknown.line() == f"what balance by {by} would keep is known after the next selection"
    corpus = corpus_for(tmp_path, asked)
    select_samples(corpus, workspace)
    folder = workspace.release_dir(read_draft(workspace).release_id)
    foretold = balance_cost(corpus.select, folder, "1234")
    assert foretold is not None
    table = selection(workspace).filter("keep")
    if by == "seconds":
        for name, seconds in (("text+video", 3), ("audio+text", 2)):
            kept = (table["signature"] == name).sum() * seconds
            assert abs(kept - foretold.signatures[name][1]) <= seconds
    assert sum(copies for _, _, copies in foretold.signatures.values()) == pytest.approx(100, abs=1)


def test_a_balance_that_drops_most_is_warned_about() -> None:
    assert cut_warnings({"kept": 50}, {"balance:modality": 30, "balance:concept": 20, "filter:x": 900}) == []
    warning = cut_warnings({"kept": 49}, {"balance:modality": 30, "balance:concept": 21})
    assert warning[0].startswith("balance drops 51 of 100 samples (51.0%). Remedy: `mmdata plan`")
    assert cut_warnings({}, {}) == []


def test_the_report_of_a_selection_warns_of_a_large_cut(tmp_path: Path) -> None:
    samples = [sample(n, kind="image" if n % 20 else "text") for n in range(200)]
    select = {"dedup": {"phash_bits": None, "semantic_eps": None}, "balance": {"max_ratio": 1, "tail_share": 0}}
    corpus = corpus_for(tmp_path, select)
    report = select_samples(corpus, build(corpus, {"web-000000": [samples]}))
    assert report.tables["balance"][0]["warning"].startswith("balance drops 180 of 200 samples (90.0%)")
    corpus = corpus_for(tmp_path, {**select, "balance": {}})
    assert "balance" not in select_samples(corpus, build(corpus, {})).tables
