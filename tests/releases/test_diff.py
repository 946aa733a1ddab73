"""What is different between two releases: exact on a pair made by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from mmdata.cli.main import app
from mmdata.config import Releases
from mmdata.errors import DataError
from mmdata.publish.release import publish_release
from mmdata.releases.diff import Diff, compare_scores, diff_releases
from mmdata.releases.draft import read_draft
from mmdata.releases.drift import changes_of, sudden_changes
from mmdata.releases.manifest import open_release
from mmdata.releases.pins import roll_back
from mmdata.report.diff_page import comparison_page
from tests.support.workspaces import SELECT_ALL, Built, add_parts, build, release


def grown(root: Path, **sections: object) -> tuple[Built, str, str]:
    """A release of numbers 0 to 39; then web-000001 loses 4 rows and gains 6, and web-000002 comes with 10."""
    built = build(str(root), {"web-000000": range(20), "web-000001": range(20, 40)}, **sections)
    first = release(built)
    add_parts(built, {"web-000001": [*range(24, 40), *range(100, 106)], "web-000002": range(200, 210)})
    select_and_publish(built)
    second = str(read_draft(built.workspace).release_id)
    return built, first, second


def select_and_publish(built: Built) -> str:
    release(built)
    return publish_release(built.corpus, built.workspace).text["latest"]


def of(built: Built, first: str, second: str) -> Diff:
    return diff_releases(*(open_release(built.workspace.release_dir(one)) for one in (first, second)))


def test_what_came_and_went_is_counted_with_reasons(tmp_path: Path) -> None:
    built, first, second = grown(tmp_path / "workspace")
    diff = of(built, first, second)
    expected = {"samples_before": 40, "samples_after": 52, "added": 16, "dropped": 4, "stayed": 36}
    assert {name: diff.counts[name] for name in expected} == expected
    assert diff.added == {"new row": 16}
    assert diff.dropped == {"its row is gone": 4}
    assert diff.counts["shards_new"] + diff.counts["shards_reused"] == len(
        open_release(built.workspace.release_dir(second)).manifest["shards"]
    )
    back = of(built, second, first)
    assert (back.counts["added"], back.counts["dropped"]) == (4, 16)
    assert back.dropped == {"its part is gone": 10, "its row is gone": 6}
    same = of(built, first, first)
    assert same.counts["added"] == same.counts["dropped"] == same.counts["shards_new"] == 0
    assert same.scores.stability == 0


def test_a_changed_filter_is_the_reason(tmp_path: Path) -> None:
    loose = {**SELECT_ALL, "filter": {"min_clip_score": 0.2}}
    built = build(str(tmp_path / "workspace"), {"web-000000": range(60)}, select=loose)
    first = release(built)
    tight = build(
        str(tmp_path / "workspace"), {"web-000000": range(60)}, select={**loose, "filter": {"min_clip_score": 0.6}}
    )
    second = release(tight)
    diff = of(tight, first, second)
    assert set(diff.dropped) == {"filter:clip_score"}
    assert diff.dropped["filter:clip_score"] == diff.counts["dropped"] > 5
    back = of(tight, second, first)
    assert back.added == {"was dropped: filter:clip_score": diff.counts["dropped"]}
    assert diff.scores.mean_after > diff.scores.mean_before  # type: ignore[operator]
    assert diff.scores.stability is not None
    assert diff.scores.stability > 0.25


def test_the_mix_is_counted_by_domain_source_and_language(tmp_path: Path) -> None:
    built, first, second = grown(tmp_path / "workspace")
    diff = of(built, first, second)
    (domain,) = diff.mix["domain"]
    assert (domain.name, domain.before, domain.after) == ("example.org", 36, 52), "four rows are gone from the tables"
    assert [one.name for one in diff.mix["source"]] == ["web"]
    assert [(one.name, one.share_after) for one in diff.mix["language"]] == [("en", 1.0)]
    assert sum(one.after for one in diff.mix["signature"]) == diff.counts["copies_after"]


def test_samples_whose_tables_are_gone_count_for_no_domain(tmp_path: Path) -> None:
    built, first, second = grown(tmp_path / "workspace")
    for path in built.workspace.part_dir("web-000000").glob("rows/*.parquet"):
        path.unlink()
    domains = {one.name: one.after for one in of(built, first, second).mix["domain"]}
    assert domains == {"example.org": 32}


def test_the_stability_index_tells_the_same_from_another_population() -> None:
    numbers = np.random.default_rng(0)
    one, same, other = numbers.normal(0, 1, 5000), numbers.normal(0, 1, 5000), numbers.normal(0.6, 1, 5000)
    assert compare_scores(one, same).stability < 0.02  # type: ignore[operator]
    assert compare_scores(one, other).stability > 0.25  # type: ignore[operator]
    assert compare_scores(one, one[:0]).stability is None
    assert compare_scores(np.ones(5), np.ones(9)).stability == 0


def test_sudden_changes_are_noted_and_told(tmp_path: Path) -> None:
    built, _, second = grown(tmp_path / "workspace", releases={"max_growth": 0.2})
    noted = changes_of(built.workspace, second)
    assert noted is not None
    assert noted["sudden"] == ["samples: 40, now 52 (releases.max_growth 0.2)"]
    told = publish_release(built.corpus, built.workspace)
    assert "52" in told.text["sudden changes"]
    assert "mix since the parent" in told.images
    assert told.tables["added since the parent"] == [{"why": "new row", "samples": 16}]
    assert built.workspace.latest() == second


def test_a_release_that_changes_suddenly_is_held_until_a_person_takes_it(tmp_path: Path) -> None:
    sections = {"releases": {"max_growth": 0.2, "on_sudden_change": "hold"}}
    built, first, second = grown(tmp_path / "workspace", **sections)
    assert built.workspace.latest() == first
    assert set(built.workspace.releases()) == {first, second}
    assert select_and_publish(built).startswith(f"stays `{first}`: release `{second}` changes suddenly")
    roll_back(built.workspace, second)
    assert select_and_publish(built) == f"`{second}`"
    assert built.workspace.latest() == second


def test_limits_name_what_moved(tmp_path: Path) -> None:
    built, first, second = grown(tmp_path / "workspace")
    diff = of(built, first, second)
    assert sudden_changes(diff, Releases(max_growth=1.0, max_score_shift=100)) == []
    shifted = diff_of_shares(diff)
    (line,) = sudden_changes(shifted, Releases(max_growth=1.0, max_score_shift=100))
    assert line == "domain bought.example: 1.0% of the samples, now 31.0% (releases.max_shift 0.1)"


def diff_of_shares(diff: Diff) -> Diff:
    from dataclasses import replace

    from mmdata.releases.diff import Shift

    return replace(diff, mix={**diff.mix, "domain": (Shift("bought.example", 1, 31, 0.01, 0.31),)})


def test_the_page_escapes_what_comes_from_outside(tmp_path: Path) -> None:
    from dataclasses import replace

    from mmdata.releases.diff import Shift

    built, first, second = grown(tmp_path / "workspace")
    nasty = "<script>alert(1)</script>\x1b]0;x\x07"
    diff = replace(of(built, first, second), dropped={nasty: 3})
    diff = replace(diff, mix={**diff.mix, "concept": (Shift(nasty, 1, 2, 0.5, 0.5),)})
    page = comparison_page(diff, [nasty])
    assert "<script" not in page
    assert "\x1b" not in page
    assert page.count("&lt;script&gt;") == 3
    assert '<svg class="chart"' in page


def test_the_command_prints_and_writes(tmp_path: Path) -> None:
    _, first, second = grown(tmp_path / "workspace")
    config = tmp_path / "corpus.yaml"
    config.write_text("workspace: ./workspace\nsources: [{name: web, kind: laion, files: 'inbox/*.parquet'}]\n")
    run = CliRunner().invoke
    result = run(app, ["diff", first[:8], "-c", str(config), "--html", str(tmp_path / "diff.html")])
    assert result.exit_code == 0, result.output
    assert "16 samples added, 4 dropped, 36 stayed" in result.output
    assert (tmp_path / "diff.html").read_text().startswith("<!doctype html>")
    result = run(app, ["diff", first, second, "-c", str(config), "--json"])
    assert json.loads(result.output)["counts"]["added"] == 16


def test_a_release_without_its_selection_cannot_be_compared(tmp_path: Path) -> None:
    built, first, second = grown(tmp_path / "workspace")
    (built.workspace.release_dir(first) / "selection.parquet").unlink()
    with pytest.raises(DataError, match=r"selection\.parquet is not there"):
        of(built, first, second)
