"""Sections `download` and `clips`: values that cannot work are refused."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from mmdata.config import Clips, Download


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"ports": [443, 0]}, "0 is not a port"),
        ({"ports": [70_000]}, "70000 is not a port"),
        ({"proxy": "https://proxy.example:3128"}, "expected a proxy as http://host:port"),
        ({"proxy": "http://proxy.example"}, "expected a proxy as http://host:port"),
    ],
)
def test_ports_and_proxies_are_checked(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        Download.model_validate(settings)
    assert Download(ports=[80], proxy="http://proxy.example:3128").ports == [80]


def test_a_clip_cannot_be_shorter_at_most_than_at_least() -> None:
    with pytest.raises(ValidationError, match=r"max_clip_s \(5\) is under min_clip_s \(10\)"):
        Clips(max_clip_s=5)
