"""Where the Dagster instance of a workspace lies, and what is noted in it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mmdata.storage.atomic import publish_json
from mmdata.workspace.layout import Workspace
from pipelines import home as home_module
from pipelines.home import RECORD_HOLDS_FOR, dagster_home, is_recorded, record_build, settings_template


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    return Workspace(str(tmp_path / "workspace"))


def test_home_lies_in_the_workspace_and_holds_our_settings(workspace: Workspace, tmp_path: Path) -> None:
    home = dagster_home(workspace)
    assert home == tmp_path / "workspace" / ".dagster"
    assert (home / "dagster.yaml").read_bytes() == settings_template().read_bytes()


def test_settings_that_a_person_changed_are_left_alone(workspace: Workspace) -> None:
    home = dagster_home(workspace)
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    dagster_home(workspace)
    assert (home / "dagster.yaml").read_text() == "telemetry: {enabled: false}\n"


def test_home_of_the_environment_wins(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "elsewhere"))
    assert dagster_home(workspace) == tmp_path / "elsewhere"


def test_a_build_counts_as_recorded_for_its_own_release_and_workspace(workspace: Workspace, tmp_path: Path) -> None:
    assert not is_recorded(workspace, "r1")
    record_build(workspace, "r1")
    assert is_recorded(workspace, "r1")
    assert not is_recorded(workspace, "r2")


def test_a_home_that_two_workspaces_share_holds_the_record_of_one(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "shared"))
    record_build(workspace, "r1")
    assert not is_recorded(Workspace(str(tmp_path / "other")), "r1")


@pytest.mark.parametrize(
    ("age", "holds"),
    [(RECORD_HOLDS_FOR - timedelta(minutes=1), True), (RECORD_HOLDS_FOR, False), (-timedelta(hours=1), False)],
    ids=["young", "old", "of the future"],
)
def test_an_old_record_no_longer_keeps_the_ui_up_to_date(workspace: Workspace, age: timedelta, holds: bool) -> None:
    at = (datetime.now(UTC) - age).isoformat()
    noted = {"workspace": str(workspace.root), "release_id": "r1", "at": at}
    publish_json(home_module._record_path(workspace), noted)
    assert is_recorded(workspace, "r1") == holds


def test_a_damaged_record_is_no_record(workspace: Workspace) -> None:
    (dagster_home(workspace) / "last_build.json").write_text("{")
    assert not is_recorded(workspace, "r1")
