"""The documentation agrees with the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.generate import pages
from mmdata.observe import logs
from mmdata.observe.metrics import METRICS

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.name)
def test_a_page_of_settings_is_what_the_models_say(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == pages()[path], "stale: run `make docs`"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_between_pages_lead_somewhere(path: Path) -> None:
    targets = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", path.read_text(encoding="utf-8"))
    missing = [target for target in targets if not (path.parent / target).exists()]
    assert missing == []


def test_the_page_on_logs_has_every_field() -> None:
    page = (ROOT / "docs" / "observability.md").read_text(encoding="utf-8")
    assert [row for name, meaning in logs.FIELDS.items() if (row := f"| `{name}` | {meaning} |") not in page] == []


def test_the_page_on_metrics_has_every_metric_and_its_alerts_name_no_other() -> None:
    page = (ROOT / "docs" / "observability.md").read_text(encoding="utf-8")
    for name, metric in METRICS.items():
        labels = ", ".join(f"`{label}`" for label in metric.labels) or "none"
        assert f"| `{name}` | {metric.kind} | {labels} | {metric.help} |" in page
    assert set(re.findall(r"\bmmdata_[a-z_]+", page)) == set(METRICS)
