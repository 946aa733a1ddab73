"""Pinning and rolling back: what a person has said stands against what the next build would do."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmdata.errors import DataError, UserError
from mmdata.publish.release import publish_release
from mmdata.releases.listing import list_releases
from mmdata.releases.manifest import open_release
from mmdata.releases.pins import named_release, pin, pins, roll_back, rolled_back, unpin
from mmdata.select.stage import select_samples
from mmdata.shards.stage import write_shards
from tests.support.workspaces import Built, add_parts, build, release


@pytest.fixture
def grown(tmp_path: Path) -> tuple[Built, list[str]]:
    """Three releases, each of a part more."""
    built = build(str(tmp_path / "workspace"), {"web-000000": range(20)})
    ids = [release(built)]
    for step in (1, 2):
        add_parts(built, {f"web-{step:06d}": range(20 * step, 20 * step + 20)})
        ids.append(release(built))
    return built, ids


def test_rolled_back_inputs_do_not_become_the_latest_again(grown: tuple[Built, list[str]]) -> None:
    built, (first, second, third) = grown
    assert roll_back(built.workspace, first, "a bad source") == [third, second]
    assert built.workspace.latest() == first
    for _ in range(2):
        assert release(built) == first
    assert {mark["release"] for mark in rolled_back(built.workspace).values()} == {second, third}
    told = {one.release_id: one for one in list_releases(built.workspace)}
    assert told[second].is_rolled_back
    assert told[second].note == "a bad source"
    assert told[first].is_latest


def test_publishing_says_why_the_latest_stays(grown: tuple[Built, list[str]]) -> None:
    built, (first, _, third) = grown
    roll_back(built.workspace, first)
    release(built)
    said = publish_release(built.corpus, built.workspace).text["latest"]
    assert said.startswith(f"stays `{first}`")
    assert f"mmdata rollback {third}" in said


def test_new_rows_after_a_rollback_are_released_on_top_of_it(grown: tuple[Built, list[str]]) -> None:
    built, (_, second, _) = grown
    roll_back(built.workspace, second)
    add_parts(built, {"web-000003": range(60, 80)})
    newest = release(built)
    assert newest == built.workspace.latest()
    assert open_release(built.workspace.release_dir(newest)).manifest["parent"] == second


def test_a_later_release_can_be_taken_back(grown: tuple[Built, list[str]]) -> None:
    built, (first, _, third) = grown
    roll_back(built.workspace, first)
    roll_back(built.workspace, third)
    assert built.workspace.latest() == third
    assert release(built) == third


def test_kill_between_the_marks_and_latest_leaves_the_old_latest(
    grown: tuple[Built, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    built, (first, _, third) = grown

    def killed(self: object, release_id: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(type(built.workspace), "set_latest", killed)
        roll_back(built.workspace, first)
    assert built.workspace.latest() == third
    assert release(built) == third
    roll_back(built.workspace, first)
    assert built.workspace.latest() == first


def test_release_with_a_lost_shard_is_not_rolled_back_to(grown: tuple[Built, list[str]]) -> None:
    built, (first, _, third) = grown
    shard = open_release(built.workspace.release_dir(first)).manifest["shards"][0]["name"]
    (built.workspace.shards_dir / shard).unlink()
    with pytest.raises(DataError, match=shard):
        roll_back(built.workspace, first)
    assert built.workspace.latest() == third
    with pytest.raises(UserError, match="latest release already"):
        roll_back(built.workspace, third)


def test_a_release_is_found_by_its_first_digits(grown: tuple[Built, list[str]]) -> None:
    built, (first, *_) = grown
    assert named_release(built.workspace, first[:8]).id == first
    for wrong in ("", "nothing"):
        with pytest.raises(UserError, match=first):
            named_release(built.workspace, wrong)


def test_pins_are_kept_with_their_notes(grown: tuple[Built, list[str]]) -> None:
    built, (first, second, _) = grown
    assert pin(built.workspace, first, "the paper's") == first
    assert pins(built.workspace)[first]["note"] == "the paper's"
    with pytest.raises(UserError, match=first):
        unpin(built.workspace, second)
    assert unpin(built.workspace, first) == first
    assert pins(built.workspace) == {}


def test_rolled_back_inputs_make_nothing_anew(grown: tuple[Built, list[str]]) -> None:
    built, ids = grown
    roll_back(built.workspace, ids[0])
    select_samples(built.corpus, built.workspace)
    assert write_shards(built.corpus, built.workspace).counts["shards_written"] == 0
    release(built)
    assert set(built.workspace.releases()) == set(ids)
