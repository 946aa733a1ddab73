"""A plan as JSON and as Markdown."""

from __future__ import annotations

import json

from mmdata.inspect.plan_text import as_markdown
from tests.inspect.conftest import Nightly


def test_json_and_markdown_tell_the_same(built: Nightly) -> None:
    built.sections = {"download": {"image_size": 64}}
    plan = built.plan()
    values = json.loads(json.dumps(plan.to_json()))
    assert values["totals"][0] == {
        **{"stage": "media", "parts": 2, "slices": 6, "rows": 60, "urls_due": 0, "is_exact": True}
    }
    assert values["parts"]["work"][0]["stages"][0]["settings"] == [
        {"name": "download.image_size", "old": 256, "new": 64}
    ]
    text = as_markdown(plan)
    assert "| media | 2 | 6 | 60 rows |" in text
    assert "download.image" in text
