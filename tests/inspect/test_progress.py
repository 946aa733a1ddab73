"""Durations and estimates in words."""

from __future__ import annotations

import pytest

from mmdata.inspect.progress import duration


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (89, "89 s"), (600, "10 min"), (11_100, "3 h 5 min"), (187_200, "2 d 4 h")]
)
def test_durations_are_said_as_people_do(seconds: float, text: str) -> None:
    assert duration(seconds) == text
