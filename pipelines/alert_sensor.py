"""The sensor that sends alerts about failed runs and checks.

It reads the runs that ended since its last tick, in the order in which they ended, and keeps in its cursor which
failures it has reported. A failure is reported once, and again when it changes or still happens a day later. No run
waits for the sensor. Each target has its own state in the cursor: a target that is down misses nothing, and the other
targets get nothing twice.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import dagster as dg
from dagster._core.event_api import RunStatusChangeRecordsFilter

from mmdata.config.observe import Alerts
from mmdata.errors import UserError
from mmdata.observe import logs
from mmdata.observe.alerts import Happening, NotDelivered, deliver, message, targets
from pipelines.partitions import PARTITION_TAG
from pipelines.resources import CorpusResource

_log = logs.logger(__name__)

RUNS_PER_TICK = 200
FIRST_LOOK_BACK_S = 3600.0  # the first tick does not report years of history
ENDED = (dg.DagsterEventType.RUN_SUCCESS, dg.DagsterEventType.RUN_FAILURE)
WILL_RETRY_TAG = "dagster/will_retry"


@dataclass
class TargetState:
    """What a target has been told; its fields are the JSON of the cursor.

    Args:
        after: storage id of the last end of a run that was read; None before the first.
        open: state -> what was reported about it, and when (Unix time).
    """

    after: int | None = None
    open: dict[str, tuple[str, float]] = field(default_factory=dict)

    def take_new(self, happenings: list[Happening], alerts: Alerts, now: float) -> list[Happening]:
        """Choose what to report now, and note it as reported."""
        new: list[Happening] = []
        for happening in happenings:
            before = self.open.get(happening.state)
            if happening.occasion == "recovery":
                self.open.pop(happening.state, None)
                if before is not None and "recovery" in alerts.tell:
                    new.append(happening)
            elif happening.occasion in alerts.tell and (
                before is None or before[0] != happening.what or now - before[1] >= alerts.repeat_after_h * 3600
            ):
                self.open[happening.state] = (happening.what, now)
                new.append(happening)
        return new


@dg.sensor(
    name="alerts",
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Reports failed runs and checks to the targets of `alerts` in corpus.yaml, each of them once.",
)
def alerts(context: dg.SensorEvaluationContext, corpus: CorpusResource) -> dg.SensorResult | dg.SkipReason:
    """Report the runs that have ended since the last tick."""
    try:
        settings, _ = corpus.open()
    except UserError as error:
        return dg.SkipReason(str(error))
    target_names = targets(settings.alerts)
    if not target_names:
        return dg.SkipReason("`alerts` in corpus.yaml names neither a webhook nor a command")
    states = _states(context.cursor)
    outcomes = []
    for target in target_names:
        before = states.get(target, TargetState())
        ends = ended_runs(context.instance, before.after)
        happenings = [happening for end in ends for happening in happenings_of(context.instance, end)]
        after = TargetState(ends[-1].storage_id if ends else before.after, dict(before.open))
        news = after.take_new(happenings, settings.alerts, time.time())
        try:
            if news:
                deliver(settings.alerts, target, message(news, settings.sources[0].name, settings.alerts.ui_url))
        except NotDelivered as error:
            _log.error("an alert was not delivered; the next tick tries again", error=error)
            outcomes.append(f"{target}: {error}; the next tick tries again")
            continue
        states[target] = after
        outcomes.append(f"{target}: {len(news)} reported, {len(after.open)} failures open")
    cursor = json.dumps({target: asdict(state) for target, state in states.items()})
    return dg.SensorResult(cursor=cursor, skip_reason="; ".join(outcomes))


def ended_runs(instance: dg.DagsterInstance, after: int | None) -> list[dg.EventLogRecord]:
    """Read the ends of runs in order, after a storage id, or of the last hour where there is no id.

    At most RUNS_PER_TICK of each kind are read; the rest waits for the next tick.
    """
    since = {"after_timestamp": time.time() - FIRST_LOOK_BACK_S} if after is None else {"after_storage_id": after}
    records: list[dg.EventLogRecord] = []
    horizon: int | None = None
    for kind in ENDED:
        run_filter: Any = RunStatusChangeRecordsFilter(kind, **since)  # type: ignore[arg-type]
        page = instance.fetch_run_status_changes(run_filter, limit=RUNS_PER_TICK, ascending=True)
        records += page.records
        if page.has_more:  # records after the last of this page wait for the next tick, to keep the order
            last = page.records[-1].storage_id
            horizon = last if horizon is None else min(horizon, last)
    in_order = sorted(records, key=lambda record: record.storage_id)
    return [record for record in in_order if horizon is None or record.storage_id <= horizon]


def happenings_of(instance: dg.DagsterInstance, end: dg.EventLogRecord) -> Iterator[Happening]:
    """What the end of a run means for its checks and for its job."""
    run = instance.get_run_by_id(end.run_id)
    if run is None:  # somebody has deleted it
        return
    part = run.tags.get(PARTITION_TAG)
    identity: dict[str, Any] = {"job": run.job_name, "run_id": run.run_id, "part": part}
    evaluations = instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION).records
    for record in evaluations:
        event = record.event_log_entry.dagster_event
        if event is None:
            continue
        check = event.asset_check_evaluation_data
        name = f"{check.asset_key.to_user_string()}/{check.check_name}"
        numbers = {
            key: value.value
            for key, value in check.metadata.items()
            if isinstance(value, dg.IntMetadataValue | dg.FloatMetadataValue) and value.value is not None
        }
        state = f"check:{name}:{part or ''}"
        if check.passed:
            yield Happening("recovery", state, f"check {name} passes again", **identity)
        else:
            yield Happening("check_failure", state, f"check {name} failed", numbers=numbers, **identity)
    state = f"run:{run.job_name}:{part or ''}"
    if run.status is dg.DagsterRunStatus.SUCCESS:
        yield Happening("recovery", state, f"{run.job_name} succeeds again", **identity)
    elif run.tags.get(WILL_RETRY_TAG) != "true":  # Dagster itself starts the run of a lost worker again
        steps = instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE).records
        failed = sorted({key for step in steps if (key := step.event_log_entry.step_key)})
        why = f"failed in {', '.join(failed)}" if failed else "failed outside its steps"
        yield Happening("run_failure", state, f"{run.job_name} {why}", **identity)


def _states(cursor: str | None) -> dict[str, TargetState]:
    """The state of each target, read from the cursor."""
    values = json.loads(cursor) if cursor else {}
    return {
        target: TargetState(value["after"], {state: (text, at) for state, (text, at) in value["open"].items()})
        for target, value in values.items()
    }
