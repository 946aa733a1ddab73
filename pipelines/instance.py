"""Opens the Dagster instance of a workspace: sizes its pools, and clears what killed builds left in it."""

import os
import socket

import dagster as dg
from filelock import FileLock

from mmdata.workspace.layout import Workspace
from mmdata.workspace.lease_store import is_alive
from pipelines.home import dagster_home
from pipelines.partitions import IN_PROGRESS
from pipelines.resources import POOLS

# Dagster would capture what the steps print, and the progress bars would lose the terminal.
NO_COMPUTE_LOGS = {"module": "dagster._core.storage.noop_compute_log_manager", "class": "NoOpComputeLogManager"}

HOST_TAG, PID_TAG = "mmdata/host", "mmdata/pid"


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
