"""Errors: the text that is shown, and what a failed part says."""

from __future__ import annotations

import errno
import sqlite3

import pytest

from mmdata.errors import DataError, MMDataError, PartFailed, describe_machine_error, first_line


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
    assert "Remedy: repair the cause, then `mmdata build`" in str(error)
    assert error.transient


def test_what_the_machine_refuses_names_the_file_and_the_remedy_wherever_it_is_in_the_chain() -> None:
    refusal = OSError(errno.ENOSPC, "no space", "/data/a.tar")
    wrapped = RuntimeError("a library gave up")
    wrapped.__cause__ = refusal
    for error in (refusal, wrapped):
        text = describe_machine_error(error)
        assert text is not None
        assert text.startswith("/data/a.tar: No space left on device. Remedy: free space")
    assert describe_machine_error(OSError(errno.ECONNRESET, "reset")) is None
    assert describe_machine_error(ValueError("no file")) is None


def test_a_database_on_a_full_or_read_only_disk_is_such_a_refusal() -> None:
    for name, text in (("SQLITE_FULL", "No space left"), ("SQLITE_READONLY", "Read-only file system")):
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorname = name
        assert text in str(describe_machine_error(error))
