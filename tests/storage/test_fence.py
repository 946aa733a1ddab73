"""Fences: a change under a fenced folder happens inside the holder's block, and a lost lease stops it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from upath import UPath

from mmdata.storage.atomic import publish_bytes, withdraw
from mmdata.storage.fence import fence, fenced


class Holding:
    """Counts how often its block is entered; raises once the lease is lost."""

    def __init__(self) -> None:
        self.entered = 0
        self.lost = False

    @contextmanager
    def hold(self) -> Iterator[None]:
        if self.lost:
            raise PermissionError("the lease is lost")
        self.entered += 1
        yield


def test_only_changes_under_the_roots_enter_the_fence(tmp_path: Path) -> None:
    holding = Holding()
    with fence((UPath(tmp_path / "part"),), holding.hold):
        publish_bytes(UPath(tmp_path / "part" / "a"), b"1")
        publish_bytes(UPath(tmp_path / "part-of-another-name"), b"1")
        assert holding.entered == 1
        withdraw(UPath(tmp_path / "part" / "a"))
    assert holding.entered == 2
    publish_bytes(UPath(tmp_path / "part" / "b"), b"1")
    assert holding.entered == 2, "the fence has ended with its block"


def test_a_lost_lease_stops_writes_and_deletions_and_leaves_the_old_file(tmp_path: Path) -> None:
    holding, target = Holding(), UPath(tmp_path / "file")
    with fence((UPath(tmp_path),), holding.hold):
        publish_bytes(target, b"old")
        holding.lost = True
        with pytest.raises(PermissionError, match="lost"):
            publish_bytes(target, b"new")
        with pytest.raises(PermissionError, match="lost"):
            withdraw(target)
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_newest_of_two_fences_over_a_path_counts(tmp_path: Path) -> None:
    """A process that lost a lease and has taken it again writes under the new holding."""
    lost, taken_again = Holding(), Holding()
    lost.lost = True
    root = (UPath(tmp_path),)
    with fence(root, lost.hold), fence(root, taken_again.hold), fenced(UPath(tmp_path / "file")):
        assert taken_again.entered == 1
