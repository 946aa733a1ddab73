"""The sensor that tells people of failed runs and checks.

It reads the runs that have ended since its last look, in the order in which they ended, and keeps what it has told in
its cursor: a failure is told once, and again when it changes or still happens a day later. Nothing of a run waits for
it. Each target has a place of its own in the cursor, so that one that is down neither misses anything nor makes the
other hear things twice.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import dagster as dg
from dagster._core.event_api import RunStatusChangeRecordsFilter

from mmdata.config.alerting import Alerts
from mmdata.errors import UserError
from mmdata.observe import logs
from mmdata.observe.alerts import Happening, NotDelivered, deliver, message, targets
from pipelines.partitions import PARTITION_TAG
from pipelines.resources import CorpusResource

_log = logs.logger(__name__)

RUNS_A_TICK = 200
LOOK_BACK_S = 3600.0  # the first look: not years of history
ENDED = (dg.DagsterEventType.RUN_SUCCESS, dg.DagsterEventType.RUN_FAILURE)
WILL_RETRY_TAG = "dagster/will_retry"


@dataclass
class Told:
    """What a target knows.

    Args:
        after: storage id of the last run's end that was looked at; None: none yet.
        open: state -> what was told of it, and when (Unix time).
    """

    after: int | None = None
    open: dict[str, tuple[str, float]] = field(default_factory=dict)

    def news(self, happenings: list[Happening], alerts: Alerts, now: float) -> list[Happening]:
        """What of these is to be told; notes it as told."""
        news: list[Happening] = []
        for one in happenings:
            before = self.open.get(one.state)
            if one.occasion == "recovery":
                self.open.pop(one.state, None)
                if before is not None and "recovery" in alerts.tell:
                    news.append(one)
            elif one.occasion in alerts.tell and (
                before is None or before[0] != one.what or now - before[1] >= alerts.repeat_after_h * 3600
            ):
                self.open[one.state] = (one.what, now)
                news.append(one)
        return news


@dg.sensor(
    name="alerts",
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Tells the targets of corpus.yaml's `alerts` of failed runs and checks: once each, names and numbers.",
)
def alerts(context: dg.SensorEvaluationContext, corpus: CorpusResource) -> dg.SensorResult | dg.SkipReason:
    try:
        settings, _ = corpus.open()
    except UserError as error:
        return dg.SkipReason(str(error))
    named = targets(settings.alerts)
    if not named:
        return dg.SkipReason("corpus.yaml's `alerts` names neither a webhook nor a command")
    known = _read(context.cursor)
    outcomes = []
    for target in named:
        told = known.get(target, Told())
        ends = ended_runs(context.instance, told.after)
        happenings = [one for end in ends for one in happenings_of(context.instance, end)]
        after = Told(ends[-1].storage_id if ends else told.after, dict(told.open))
        news = after.news(happenings, settings.alerts, time.time())
        try:
            if news:
                deliver(settings.alerts, target, message(news, settings.sources[0].name, settings.alerts.ui_url))
        except NotDelivered as error:
            _log.error("an alert was not delivered; the next tick tries again", error=error)
            outcomes.append(f"{target}: {error}; tries again")
            continue
        known[target] = after
        outcomes.append(f"{target}: {len(news)} told, {len(after.open)} failures open")
    cursor = json.dumps({target: asdict(told) for target, told in known.items()})
    return dg.SensorResult(cursor=cursor, skip_reason="; ".join(outcomes))


def ended_runs(instance: dg.DagsterInstance, after: int | None) -> list[dg.EventLogRecord]:
    """The ends of runs after a storage id, in order, at most some hundred; the last hour's where there is no id."""
    since = {"after_timestamp": time.time() - LOOK_BACK_S} if after is None else {"after_storage_id": after}
    found: list[dg.EventLogRecord] = []
    horizon: int | None = None
    for kind in ENDED:
        wanted: Any = RunStatusChangeRecordsFilter(kind, **since)  # type: ignore[arg-type]
        page = instance.fetch_run_status_changes(wanted, limit=RUNS_A_TICK, ascending=True)
        found += page.records
        if page.has_more:  # what ended after it waits, or the order would be lost
            last = page.records[-1].storage_id
            horizon = last if horizon is None else min(horizon, last)
    return sorted((one for one in found if horizon is None or one.storage_id <= horizon), key=lambda r: r.storage_id)


def happenings_of(instance: dg.DagsterInstance, end: dg.EventLogRecord) -> Iterator[Happening]:
    """What the end of a run says: of its checks, and of itself."""
    run = instance.get_run_by_id(end.run_id)
    if run is None:  # deleted since
        return
    part = run.tags.get(PARTITION_TAG)
    known: dict[str, Any] = {"job": run.job_name, "run_id": run.run_id, "part": part}
    evaluated = instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION).records
    for record in evaluated:
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
            yield Happening("recovery", state, f"check {name} passes again", **known)
        else:
            yield Happening("check_failure", state, f"check {name} failed", numbers=numbers, **known)
    state = f"run:{run.job_name}:{part or ''}"
    if run.status is dg.DagsterRunStatus.SUCCESS:
        yield Happening("recovery", state, f"{run.job_name} succeeds again", **known)
    elif run.tags.get(WILL_RETRY_TAG) != "true":  # Dagster starts a lost worker's run again by itself
        steps = instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE).records
        failed = sorted({key for step in steps if (key := step.event_log_entry.step_key)})
        why = f"failed in {', '.join(failed)}" if failed else "failed outside its steps"
        yield Happening("run_failure", state, f"{run.job_name} {why}", **known)


def _read(cursor: str | None) -> dict[str, Told]:
    known = json.loads(cursor) if cursor else {}
    return {
        target: Told(told["after"], {state: (what, at) for state, (what, at) in told["open"].items()})
        for target, told in known.items()
    }
