"""The difference between two releases: exact on a pair made by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmdata.errors import DataError
from mmdata.releases.diff import compare_scores
from mmdata.releases.manifest import open_release
from tests.releases.conftest import Grown, diff_between
from tests.support.workspaces import SELECT_ALL, Built, build, corpus_of, release


def test_added_and_dropped_samples_are_counted_with_reasons(shared_grown: Grown) -> None:
    built, first, second = shared_grown
    diff = shared_grown.diff()
    expected = {"samples_before": 40, "samples_after": 52, "added": 16, "dropped": 4, "stayed": 36}
    assert {name: diff.counts[name] for name in expected} == expected
    assert diff.added == {"new row": 16}
    assert diff.dropped == {"its row is gone": 4}
    assert diff.counts["shards_new"] + diff.counts["shards_reused"] == len(
        open_release(built.workspace.release_dir(second)).manifest["shards"]
    )
    back = diff_between(built, second, first)
    assert (back.counts["added"], back.counts["dropped"]) == (4, 16)
    assert back.dropped == {"its part is gone": 10, "its row is gone": 6}
    same = diff_between(built, first, first)
    assert same.counts["added"] == same.counts["dropped"] == same.counts["shards_new"] == 0
    assert same.scores.stability == 0


def test_a_changed_filter_is_the_reason(tmp_path: Path) -> None:
    root = str(tmp_path / "workspace")
    loose, tight = ({**SELECT_ALL, "filter": {"min_clip_score": least}} for least in (0.2, 0.6))
    built = build(root, {"web-000000": range(60)}, select=loose)
    first = release(built)
    second = release(Built(corpus_of(root, select=tight), built.workspace))
    diff = diff_between(built, first, second)
    assert set(diff.dropped) == {"filter:clip_score"}
    assert diff.dropped["filter:clip_score"] == diff.counts["dropped"] > 5
    back = diff_between(built, second, first)
    assert back.added == {"was dropped: filter:clip_score": diff.counts["dropped"]}
    assert diff.scores.mean_after > diff.scores.mean_before  # type: ignore[operator]
    assert diff.scores.stability is not None
    assert diff.scores.stability > 0.25


def test_the_mix_is_counted_by_domain_source_and_language(shared_grown: Grown) -> None:
    diff = shared_grown.diff()
    (domain,) = diff.mix["domain"]
    assert (domain.name, domain.before, domain.after) == ("example.org", 36, 52), "four rows are gone from the tables"
    assert [shift.name for shift in diff.mix["source"]] == ["web"]
    assert [(shift.name, shift.share_after) for shift in diff.mix["language"]] == [("en", 1.0)]
    assert sum(shift.after for shift in diff.mix["signature"]) == diff.counts["copies_after"]


def test_json_holds_the_first_names_of_each_field(shared_grown: Grown) -> None:
    diff = shared_grown.diff()
    assert diff.to_json()["mix"]["domain"][0]["after"] == diff.mix["domain"][0].after
    assert diff.to_json(0)["mix"]["domain"] == []


def test_samples_whose_tables_are_gone_count_for_no_domain(grown: Grown) -> None:
    for path in grown.built.workspace.part_dir("web-000000").glob("rows/*.parquet"):
        path.unlink()
    assert {shift.name: shift.after for shift in grown.diff().mix["domain"]} == {"example.org": 32}


def test_the_stability_index_tells_the_same_from_another_population() -> None:
    numbers = np.random.default_rng(0)
    first, same, other = numbers.normal(0, 1, 5000), numbers.normal(0, 1, 5000), numbers.normal(0.6, 1, 5000)
    assert compare_scores(first, same).stability < 0.02  # type: ignore[operator]
    assert compare_scores(first, other).stability > 0.25  # type: ignore[operator]
    assert compare_scores(first, first[:0]).stability is None
    assert compare_scores(np.ones(5), np.ones(9)).stability == 0


def test_a_release_without_its_selection_cannot_be_compared(grown: Grown) -> None:
    (grown.built.workspace.release_dir(grown.first) / "selection.parquet").unlink()
    with pytest.raises(DataError, match=r"selection\.parquet is not there"):
        grown.diff()
