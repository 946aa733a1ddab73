"""The change from a parent as tables, text, charts, a page and a command's output."""

from __future__ import annotations

import json
from dataclasses import replace

from typer.testing import CliRunner

from mmdata.cli.main import app
from mmdata.releases.changes import change_images, change_line, change_tables, change_text
from mmdata.releases.diff import Changes, Shift
from mmdata.report.diff_page import comparison_page
from tests.releases.conftest import Grown

NASTY = "<script>alert(1)</script>\x1b]0;x\x07"


def changes_with_nasty_names(grown: Grown) -> Changes:
    diff = grown.diff()
    return replace(diff, mix={**diff.mix, "concept": (Shift(NASTY, 1, 2, 0.5, 0.75),)}).to_json()


def test_tables_show_reasons_and_the_largest_shift_first(shared_grown: Grown) -> None:
    tables = change_tables(changes_with_nasty_names(shared_grown))
    assert tables["added since the parent"] == [{"why": "new row", "samples": 16}]
    assert tables["dropped since the parent"] == [{"why": "its row is gone", "samples": 4}]
    assert tables["what moved"][0]["share_change"] == 0.25
    assert "\x1b" not in tables["what moved"][0]["name"]


def test_text_counts_samples_and_escapes_sudden_changes(shared_grown: Grown) -> None:
    changes = changes_with_nasty_names(shared_grown)
    assert "16 samples added, 4 dropped, 36 stayed" in change_line(changes["counts"])
    assert set(change_text(changes)) == {"changes"}
    text = change_text({**changes, "sudden": [NASTY]})["sudden changes"]
    assert "<script" not in text
    assert "\x1b" not in text


def test_charts_are_drawn_and_small(shared_grown: Grown) -> None:
    images = change_images(shared_grown.diff().to_json())
    assert set(images) == {"mix since the parent", "scores since the parent"}
    assert all(len(svg) < 20_000 for svg in images.values())


def test_a_first_release_has_nothing_to_show() -> None:
    assert (change_tables(None), change_text(None), change_images(None)) == ({}, {}, {})


def test_the_page_escapes_names_and_reasons(shared_grown: Grown) -> None:
    diff = replace(shared_grown.diff(), dropped={NASTY: 3})
    diff = replace(diff, mix={**diff.mix, "concept": (Shift(NASTY, 1, 2, 0.5, 0.5),)})
    page = comparison_page(diff, [NASTY])
    assert "<script" not in page
    assert "\x1b" not in page
    assert page.count("&lt;script&gt;") == 3
    assert '<svg class="chart"' in page


def test_the_command_prints_and_writes(grown: Grown) -> None:
    _, first, second = grown
    folder = grown.built.workspace.root.parent
    config, html = folder / "corpus.yaml", folder / "diff.html"
    config.write_text("workspace: ./workspace\nsources: [{name: web, kind: laion, files: 'inbox/*.parquet'}]\n")
    run = CliRunner().invoke
    result = run(app, ["diff", first[:8], "-c", str(config), "--html", str(html)])
    assert result.exit_code == 0, result.output
    assert "16 samples added, 4 dropped, 36 stayed" in result.output
    assert html.read_text().startswith("<!doctype html>")
    result = run(app, ["diff", first, second, "-c", str(config), "--json"])
    assert json.loads(result.output)["counts"]["added"] == 16
