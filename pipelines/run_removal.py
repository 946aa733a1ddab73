"""What Dagster's own storage shows of samples: runs of parts and of reports, deleted when samples are forgotten."""

import sqlite3
from collections.abc import Collection
from contextlib import closing, suppress
from pathlib import Path

import dagster as dg

from mmdata.workspace.layout import Workspace
from pipelines.home import dagster_home
from pipelines.instance import open_instance
from pipelines.partitions import IN_PROGRESS

SHOWS_SAMPLES = ("features", "report")
"""Assets whose metadata holds captions and pictures."""

RELEASE_JOBS = ("publish_release", "__ASSET_JOB")
"""Jobs that make releases and their reports; the second is what the UI calls a run of assets picked by hand."""

PARTITION_TAG = "dagster/partition"


def delete_runs(workspace: Workspace, parts: Collection[str]) -> int:
    """Delete the finished runs of these parts, and those that made a release; returns how many.

    The UI then shows no history of what they made; what is done is told by the stamps, so nothing runs again for it.
    Freed pages of Dagster's SQLite files are written over, unless a server holds a file.
    """
    deleted = set()
    with open_instance(workspace) as instance:
        for run in instance.get_runs():
            part = run.tags.get(PARTITION_TAG)
            shows = part in parts if part is not None else run.job_name in RELEASE_JOBS
            if shows and run.status not in IN_PROGRESS:
                instance.delete_run(run.run_id)
                deleted.add(run.run_id)
        for name in SHOWS_SAMPLES:
            key = dg.AssetKey(name)
            last = instance.get_latest_materialization_event(key)
            if last is None or last.run_id in deleted:
                instance.wipe_assets([key])
    for path in dagster_home(workspace).rglob("*.db"):
        _compact(path)
    return len(deleted)


def _compact(path: Path) -> None:
    with suppress(sqlite3.OperationalError), closing(sqlite3.connect(path, timeout=2)) as database:
        database.execute("VACUUM")
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
