"""The Dagster instance of a workspace: opens it, and deletes the runs in it that show forgotten samples.

Opening it sizes its pools and closes the runs of killed builds.
"""

import os
import socket
import sqlite3
from collections.abc import Collection
from contextlib import closing, suppress
from pathlib import Path

import dagster as dg
from filelock import FileLock

from mmdata.workspace.layout import Workspace
from mmdata.workspace.lease_store import is_alive
from pipelines.home import dagster_home
from pipelines.partitions import IN_PROGRESS, PARTITION_TAG
from pipelines.resources import POOLS

# Dagster would capture what the steps print, and the progress bars would lose the terminal.
NO_COMPUTE_LOGS = {"module": "dagster._core.storage.noop_compute_log_manager", "class": "NoOpComputeLogManager"}

HOST_TAG, PID_TAG = "mmdata/host", "mmdata/pid"

SHOWS_SAMPLES = ("features", "report")
"""Assets whose metadata contains captions and pictures."""

RELEASE_JOBS = ("publish_release", "__ASSET_JOB")
"""Jobs that make releases and their reports. The second is the UI's name for a run of assets picked by hand."""


def open_instance(workspace: Workspace) -> dg.DagsterInstance:
    """The instance of a workspace, with its pools sized, and with the runs of killed builds closed."""
    home = dagster_home(workspace)
    # Only one process may open an instance at a time: two that create its tables at once would fail.
    with FileLock(home / "opening.lock"):
        instance = dg.DagsterInstance.local_temp(str(home), overrides={"compute_logs": NO_COMPUTE_LOGS})
        storage = instance.event_log_storage
        sized_pools = {pool.name for pool in storage.get_pool_limits()}
        for pool, slots in POOLS.items():
            if pool not in sized_pools:
                storage.set_concurrency_slots(pool, slots)
        close_runs_of_killed_builds(instance)
    return instance


def build_tags() -> dict[str, str]:
    """Tags of a run that tell a later build whether this process still lives."""
    return {HOST_TAG: socket.gethostname(), PID_TAG: str(os.getpid())}


def close_runs_of_killed_builds(instance: dg.DagsterInstance) -> None:
    """Close the runs of builds on this machine that were killed, and free the pool slots that they held.

    The daemon watches its own runs; nobody but the next build watches those of `mmdata build`.
    """
    runs_of_this_machine = dg.RunsFilter(statuses=IN_PROGRESS, tags={HOST_TAG: socket.gethostname()})
    for run in instance.get_runs(filters=runs_of_this_machine):
        pid = int(run.tags[PID_TAG])
        if pid == os.getpid() or not is_alive(pid):  # this process has not started a run yet: its number was used again
            instance.report_run_failed(run, "the process of `mmdata build` was killed; finished slices are kept")
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)


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
