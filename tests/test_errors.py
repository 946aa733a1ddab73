"""Errors: the text that is shown, and what a failed part says."""

from __future__ import annotations

import pytest

from mmdata.errors import DataError, MMDataError, PartFailed, first_line


@pytest.mark.parametrize(
    ("error", "line"),
    [(ValueError("one\ntwo"), "one"), (ValueError("  "), "ValueError"), (KeyError(), "KeyError"),
     (OSError("x" * 400), "x" * 300)],
)  # fmt: skip
def test_the_first_line_of_an_error_is_short_and_never_empty(error: Exception, line: str) -> None:
    assert first_line(error) == line


def test_a_failed_part_names_its_slices_in_order_and_the_remedy() -> None:
    error = PartFailed("web-000001", "media", {"0001": "disk full", "0000": "no network"}, transient=True)
    assert isinstance(error, DataError)
    assert isinstance(error, MMDataError)
    assert str(error).splitlines()[1:3] == ["  slice 0000: no network", "  slice 0001: disk full"]
    assert "Remedy: repair the cause, then materialise media for web-000001 again" in str(error)
    assert error.transient
