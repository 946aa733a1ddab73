"""Opens the Dagster instance of a workspace: sizes its pools, and clears what killed builds left in it."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

from mmdata.workspace.layout import Workspace
from pipelines.home import dagster_home
from pipelines.partitions import IN_PROGRESS
from pipelines.resources import POOLS

# Dagster's own capture of what steps print would take the terminal away from the progress bars.
NO_COMPUTE_LOGS = {"module": "dagster._core.storage.noop_compute_log_manager", "class": "NoOpComputeLogManager"}

HOST_TAG, PID_TAG = "mmdata/host", "mmdata/pid"


def open_instance(workspace: Workspace) -> dg.DagsterInstance:
    """The instance of a workspace, with its pools sized, and nothing held by builds that no longer live."""
    home = dagster_home(workspace)
    with _alone(home):
        instance = dg.DagsterInstance.local_temp(str(home), overrides={"compute_logs": NO_COMPUTE_LOGS})
        storage = instance.event_log_storage
        sized = {pool.name for pool in storage.get_pool_limits()}
        for pool, slots in POOLS.items():
            if pool not in sized:
                storage.set_concurrency_slots(pool, slots)
        bury_dead_builds(instance)
    return instance


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Two that open an instance for the first time would both make its tables and its pools, and one of them fail."""
    with (home / "opening.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def build_tags() -> dict[str, str]:
    """Tags by which a later build knows whether this one still lives."""
    return {HOST_TAG: socket.gethostname(), PID_TAG: str(os.getpid())}


def bury_dead_builds(instance: dg.DagsterInstance) -> None:
    """Close the runs of builds on this machine that were killed, and free the pool slots they held.

    A run of the daemon is watched by the daemon; one of `mmdata build` has nobody but the next build.
    """
    here = dg.RunsFilter(statuses=IN_PROGRESS, tags={HOST_TAG: socket.gethostname()})
    for run in instance.get_runs(filters=here):
        if not _alive(int(run.tags[PID_TAG])):
            instance.report_run_failed(run, "the process of `mmdata build` was killed; finished slices are kept")
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)


def _alive(pid: int) -> bool:
    if pid == os.getpid():
        return False  # a new process with the old number: this one has not started a run yet
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
