"""Fixtures for the tests of exports."""

from __future__ import annotations

import pytest

from training.export import comparison


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("REPEATS", 1), ("ANSWER_TOKENS_TIMED", 2), ("TEXT_TOKENS_TIMED", 16)):
        monkeypatch.setattr(comparison, name, value)
