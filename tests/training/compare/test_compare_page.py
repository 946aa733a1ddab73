"""The page of a comparison: self-contained, and names from outside have no power."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from upath import UPath

from tests.training.compare.test_outcome import made
from training.compare.compare_page import compare_page, difference_chart, publish_comparison, seeds_chart


class Tags(HTMLParser):
    """Collects tags and attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]


def test_the_page_loads_nothing_and_runs_nothing() -> None:
    page = Tags()
    page.feed(compare_page(made()))
    assert not page.links
    assert "script" not in page.tags
    assert page.tags.count("svg") == 2


def test_names_of_arms_are_shown_as_text() -> None:
    html = compare_page(made(second="<script>alert(1)</script>"))
    assert "<script>" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html


@pytest.mark.parametrize("seeds", [1, 3])
def test_charts_are_sound_svg_with_a_row_for_each_metric(seeds: int) -> None:
    outcome = made(seeds=seeds, second="a & b")
    chart = difference_chart(outcome, ("raw", "a & b")).picture()
    root = ElementTree.fromstring(chart)
    names = [one.text for one in root.iter("{http://www.w3.org/2000/svg}text") if one.get("class") == "name"]
    assert names == [metric.name for metric in outcome.measured]
    assert len(chart) < 20_000
    assert ElementTree.fromstring(seeds_chart(outcome).picture()) is not None


def test_verdict_and_unknown_truth_are_on_the_page() -> None:
    outcome = replace(made(knows_truth=False), held_out_from="clean.parquet")
    html = compare_page(outcome)
    assert re.search("against raw: better in both ways", html)
    assert "not known" in html
    assert "held-out pairs from clean.parquet" in html


def test_the_report_has_tables_pictures_and_the_page(tmp_path: Path) -> None:
    report = publish_comparison(made(), UPath(tmp_path / "page.html"))
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")
    assert len(report.tables["differences"]) == len(made().measured)
    assert all(len(picture) < 20_000 for picture in report.images.values())
    assert report.tables["verdicts"][0]["verdict"].endswith("metrics")
