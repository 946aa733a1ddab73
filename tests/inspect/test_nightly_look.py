"""The update of the catalogue says what the next build will do."""

from __future__ import annotations

from mmdata.inspect.nightly_look import refresh_catalog
from tests.inspect.conftest import Nightly

PLAN = "what this refresh implies"


def test_the_report_says_what_a_new_file_implies(built: Nightly) -> None:
    built.write("c.parquet", range(60, 75))
    report = refresh_catalog(built.corpus, built.workspace)
    assert f"a new release after {built.latest}" in report.text[PLAN]
    assert "| c.parquet | new | 15 |" in report.text[PLAN]
    assert "web-000002" in built.workspace.catalog().parts, "the catalogue is written"


def test_a_damaged_manifest_does_not_stop_the_update(built: Nightly) -> None:
    (built.workspace.release_dir(str(built.workspace.latest())) / "manifest.json").write_text("{")
    built.write("c.parquet", range(60, 75))
    report = refresh_catalog(built.corpus, built.workspace)
    assert report.text[PLAN].startswith("cannot be planned: ")
    assert "web-000002" in built.workspace.catalog().parts
