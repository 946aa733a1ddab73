"""The file of paused hosts: it is kept between runs, and damage to it stops nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from mmdata.workspace.layout import Workspace
from mmdata.workspace.paused_hosts import Pause, end_pause, read_pauses, write_pause


def pause(host: str, ends_in_s: float = 60, times: int = 1) -> Pause:
    now = datetime.now(UTC)
    return Pause(host, "http_429", now.isoformat(), (now + timedelta(seconds=ends_in_s)).isoformat(), times)


def test_pauses_are_added_replaced_and_ended(workspace: Workspace) -> None:
    assert read_pauses(workspace) == {}
    write_pause(workspace, one := pause("a.example:81"))
    write_pause(workspace, other := pause("b.example"))
    write_pause(workspace, longer := pause("a.example:81", 120, times=2))
    assert one != longer
    assert read_pauses(workspace) == {"a.example:81": longer, "b.example": other}
    end_pause(workspace, "a.example:81")
    end_pause(workspace, "c.example")
    assert read_pauses(workspace) == {"b.example": other}


def test_a_pause_is_over_at_its_end(workspace: Workspace) -> None:
    now = datetime.now(UTC)
    assert not pause("a").is_over(now)
    assert pause("a", -1).is_over(now)


def test_pauses_that_nobody_asked_about_for_months_are_forgotten(workspace: Workspace) -> None:
    write_pause(workspace, pause("old", -100 * 86_400))
    write_pause(workspace, pause("new", -1))
    assert list(read_pauses(workspace)) == ["new"]


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"a": 1}', '{"a": {"until": "soon"}}', '{"a": {"until": null}}', "null"]
)
def test_a_damaged_file_counts_as_empty_and_is_replaced(workspace: Workspace, text: str) -> None:
    (workspace.root / "hosts.json").write_text(text)
    assert read_pauses(workspace) == {}
    write_pause(workspace, pause("a"))
    assert list(read_pauses(workspace)) == ["a"]
