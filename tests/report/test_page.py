"""The filters of the HTML pages, and what the templates refuse."""

from __future__ import annotations

import jinja2
import pytest

from mmdata.report.page import environment


def rendered(template: str, **values: object) -> str:
    return environment().from_string(template).render(**values)


@pytest.mark.parametrize(
    ("template", "value", "text"),
    [
        ("{{ value|count }}", 1234567, "1,234,567"),
        ("{{ value|megabytes }}", 2_500_000, "2.5 MB"),
        ("{{ value|megabytes }}", 2_500_000_000, "2.50 GB"),
        ("{{ value|percent }}", 0.123, "12.3%"),
        ("{{ value }}", "<b>", "&lt;b&gt;"),
    ],
)
def test_filters(template: str, value: object, text: str) -> None:
    assert rendered(template, value=value) == text


def test_control_characters_are_replaced() -> None:
    assert "\x1b" not in rendered("{{ value|readable }}", value="\x1b[31mred")


def test_a_name_that_no_value_has_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError):
        rendered("{{ value }}")
