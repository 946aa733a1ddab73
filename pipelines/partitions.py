"""The parts of the sources, as Dagster's dynamic partitions."""

from __future__ import annotations

from collections.abc import Iterable

import dagster as dg

from mmdata.display import shown

PARTS = dg.DynamicPartitionsDefinition(name="parts")

IN_PROGRESS = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
PARTITION_TAG = "dagster/partition"
WHY_TAG = "mmdata/why"
"""The tag of a part's run that says why it runs."""


def sync_parts(instance: dg.DagsterInstance, names: Iterable[str]) -> None:
    """Make the partitions equal to these parts: add new ones, and delete the others (their files stay)."""
    wanted = list(names)
    existing = set(instance.get_dynamic_partitions("parts"))
    instance.add_dynamic_partitions("parts", [name for name in wanted if name not in existing])
    for name in existing.difference(wanted):
        instance.delete_dynamic_partition("parts", name)


def running_parts(instance: dg.DagsterInstance) -> set[str]:
    """The parts that have a run in progress or in the queue."""
    runs = instance.get_runs(filters=dg.RunsFilter(statuses=IN_PROGRESS))
    return {run.tags[PARTITION_TAG] for run in runs if PARTITION_TAG in run.tags}


def why_tag(text: str) -> str:
    """A reason as the value of a tag: ASCII, at most 200 characters."""
    return shown(text).encode("ascii", "replace").decode()[:200]
