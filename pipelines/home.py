"""Where the Dagster instance of a workspace lies, and what was last recorded in it. Does not import Dagster."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from upath import UPath

from mmdata.fingerprint import fingerprint
from mmdata.storage.atomic import is_local, publish_bytes, publish_json
from mmdata.workspace.json_files import read_derived
from mmdata.workspace.layout import Workspace

RECORD_HOLDS_FOR = timedelta(hours=12)
"""How long a build that changes nothing may be left out of the UI.

The assets `source_catalog` and `release` count as late after 26 hours. A build that runs at least every 14 hours, or
once a day, is thus still recorded in time.
"""


def dagster_home(workspace: Workspace) -> Path:
    """DAGSTER_HOME where that is set; else `.dagster` in a local workspace, or under ~/.mmdata for one elsewhere.

    The folder is made, and dagster.yaml put there, unless it has one.
    """
    if from_environment := os.environ.get("DAGSTER_HOME"):
        home = Path(from_environment).expanduser().absolute()
    elif is_local(workspace.root):
        home = Path(workspace.root.path).absolute() / ".dagster"
    else:
        home = Path.home() / ".mmdata" / "dagster" / fingerprint(str(workspace.root))
    home.mkdir(parents=True, exist_ok=True)
    if not (home / "dagster.yaml").exists():
        publish_bytes(UPath(home / "dagster.yaml"), settings_template().read_bytes())
    return home


def settings_template() -> Path:
    """The dagster.yaml that mmdata ships: beside the package in a checkout, inside it once installed."""
    package = Path(__file__).resolve().parent
    inside = package / "dagster_home" / "dagster.yaml"
    return inside if inside.exists() else package.parent / "dagster_home" / "dagster.yaml"


def record_build(workspace: Workspace, release_id: str) -> None:
    """Note that the instance has just recorded a whole build, and which release it ended with."""
    noted = {"workspace": str(workspace.root), "release_id": release_id, "at": datetime.now(UTC).isoformat()}
    publish_json(_record_path(workspace), noted)


def is_recorded(workspace: Workspace, release_id: str) -> bool:
    """Whether the instance recorded a whole build of this release so lately that the UI needs no new record."""
    recorded = read_derived(
        _record_path(workspace),
        lambda record: (record["workspace"], record["release_id"], datetime.fromisoformat(record["at"])),
    )
    if recorded is None or recorded[:2] != (str(workspace.root), release_id):
        return False
    return timedelta() <= datetime.now(UTC) - recorded[2] < RECORD_HOLDS_FOR


def _record_path(workspace: Workspace) -> UPath:
    return UPath(dagster_home(workspace) / "last_build.json")
