"""Sudden changes between a release and its parent: they are named, stored, and can hold a release back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mmdata.config import Releases
from mmdata.publish.release import publish_release
from mmdata.releases.diff import Shift
from mmdata.releases.drift import read_changes, sudden_changes
from mmdata.releases.pins import roll_back
from tests.releases.conftest import Grown
from tests.support.workspaces import copy_of


def test_sudden_changes_are_stored_and_reported(unpublished: Grown, tmp_path: Path) -> None:
    built = copy_of(unpublished.built, tmp_path / "workspace", releases={"max_growth": 0.2})
    report = publish_release(built.corpus, built.workspace)
    assert "52" in report.text["sudden changes"]
    assert "mix since the parent" in report.images
    assert report.tables["added since the parent"] == [{"why": "new row", "samples": 16}]
    assert built.workspace.latest() == unpublished.second
    assert read_changes(built.workspace, unpublished.first) is None, "it has no parent"
    changes = read_changes(built.workspace, unpublished.second)
    assert changes is not None
    assert changes["sudden"] == ["samples: 40, now 52 (releases.max_growth 0.2)"]


def test_a_release_that_changes_suddenly_is_held_until_a_person_takes_it(unpublished: Grown, tmp_path: Path) -> None:
    limits = {"max_growth": 0.2, "on_sudden_change": "hold"}
    built = copy_of(unpublished.built, tmp_path / "workspace", releases=limits)
    first, second = unpublished.first, unpublished.second
    text = publish_release(built.corpus, built.workspace).text["latest"]
    assert text.startswith(f"stays `{first}`: release `{second}` changes suddenly")
    assert built.workspace.latest() == first
    assert set(built.workspace.releases()) == {first, second}
    roll_back(built.workspace, second)
    assert publish_release(built.corpus, built.workspace).text["latest"] == f"`{second}`"
    assert built.workspace.latest() == second


def test_limits_name_the_shift_that_exceeds_them(shared_grown: Grown) -> None:
    diff, limits = shared_grown.diff(), Releases(max_growth=1.0, max_score_shift=100)
    assert sudden_changes(diff, limits) == []
    shifted = replace(diff, mix={**diff.mix, "domain": (Shift("bought.example", 1, 31, 0.01, 0.31),)})
    (line,) = sudden_changes(shifted, limits)
    assert line == "domain bought.example: 1.0% of the samples, now 31.0% (releases.max_shift 0.1)"
