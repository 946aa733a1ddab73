"""Deletes the runs in Dagster's storage that may show samples, when samples are forgotten."""

import sqlite3
from collections.abc import Collection
from contextlib import closing, suppress
from pathlib import Path

import dagster as dg

from mmdata.workspace.layout import Workspace
from pipelines.home import dagster_home
from pipelines.instance import open_instance
from pipelines.partitions import IN_PROGRESS, PARTITION_TAG

SHOWS_SAMPLES = ("features", "report")
"""Assets whose metadata contains captions and pictures."""

RELEASE_JOBS = ("publish_release", "__ASSET_JOB")
"""Jobs that make releases and their reports. The second is the UI's name for a run of assets picked by hand."""


def delete_runs(workspace: Workspace, parts: Collection[str]) -> int:
    """Delete the finished runs of these parts and the runs that made a release; returns their number.

    The UI then has no history of these runs. Nothing runs again because of that: the stamps say what is done. The
    freed pages of Dagster's SQLite files are overwritten, unless a server holds a file open.
    """
    deleted = set()
    with open_instance(workspace) as instance:
        for run in instance.get_runs():
            part = run.tags.get(PARTITION_TAG)
            may_show_samples = part in parts if part is not None else run.job_name in RELEASE_JOBS
            if may_show_samples and run.status not in IN_PROGRESS:
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
