"""Pinning and rolling back: a person's decision outlasts the next builds."""

from __future__ import annotations

import pytest

from mmdata.errors import DataError, UserError
from mmdata.publish.release import publish_release
from mmdata.releases.manifest import open_release
from mmdata.releases.pins import named_release, pin, pins, roll_back, rolled_back, unpin
from mmdata.select.stage import select_samples
from mmdata.shards.stage import write_shards
from tests.support.workspaces import Built, add_parts, release

History = tuple[Built, list[str]]


def test_rolled_back_inputs_do_not_become_the_latest_again(history: History) -> None:
    built, (first, *later) = history
    assert roll_back(built.workspace, first, "a bad source") == later[::-1]
    assert built.workspace.latest() == first
    for _ in range(2):
        assert release(built) == first
    marks = {mark["release"]: mark["note"] for mark in rolled_back(built.workspace).values()}
    assert marks == dict.fromkeys(later, "a bad source")


def test_publishing_says_why_the_latest_stays(history: History) -> None:
    built, (first, *_, last) = history
    roll_back(built.workspace, first)
    release(built)
    text = publish_release(built.corpus, built.workspace).text["latest"]
    assert text.startswith(f"stays `{first}`")
    assert f"mmdata rollback {last}" in text


def test_new_rows_after_a_rollback_are_released_on_top_of_it(history: History) -> None:
    built, (_, second, *_) = history
    roll_back(built.workspace, second)
    add_parts(built, {"web-000009": range(400, 420)})
    newest = release(built)
    assert newest == built.workspace.latest()
    assert open_release(built.workspace.release_dir(newest)).manifest["parent"] == second


def test_a_later_release_can_be_taken_back(history: History) -> None:
    built, (first, *_, last) = history
    roll_back(built.workspace, first)
    roll_back(built.workspace, last)
    assert built.workspace.latest() == last
    assert release(built) == last


def test_kill_between_the_marks_and_latest_leaves_the_old_latest(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    built, (first, *_, last) = history

    def killed(self: object, release_id: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(type(built.workspace), "set_latest", killed)
        roll_back(built.workspace, first)
    assert built.workspace.latest() == last
    assert release(built) == last
    roll_back(built.workspace, first)
    assert built.workspace.latest() == first


def test_release_with_a_lost_shard_is_not_rolled_back_to(history: History) -> None:
    built, (first, *_, last) = history
    shard = open_release(built.workspace.release_dir(first)).manifest["shards"][0]["name"]
    (built.workspace.shards_dir / shard).unlink()
    with pytest.raises(DataError, match=shard):
        roll_back(built.workspace, first)
    assert built.workspace.latest() == last
    with pytest.raises(UserError, match="latest release already"):
        roll_back(built.workspace, last)


def test_a_release_is_found_by_its_first_digits(history: History) -> None:
    built, (first, *_) = history
    assert named_release(built.workspace, first[:8]).id == first
    for wrong in ("", "nothing"):
        with pytest.raises(UserError, match=first):
            named_release(built.workspace, wrong)


def test_pins_are_kept_with_their_notes(history: History) -> None:
    built, (first, second, *_) = history
    assert pin(built.workspace, first, "the paper's") == first
    assert pins(built.workspace)[first]["note"] == "the paper's"
    with pytest.raises(UserError, match=first):
        unpin(built.workspace, second)
    assert unpin(built.workspace, first) == first
    assert pins(built.workspace) == {}


def test_rolled_back_inputs_make_nothing_anew(history: History) -> None:
    built, ids = history
    roll_back(built.workspace, ids[0])
    select_samples(built.corpus, built.workspace)
    assert write_shards(built.corpus, built.workspace).counts["shards_written"] == 0
    release(built)
    assert set(built.workspace.releases()) == set(ids)
