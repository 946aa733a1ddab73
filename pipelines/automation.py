"""The jobs, and the schedules and the sensor that start them.

All of these are on as soon as a Dagster daemon runs; the Automation page of the UI turns them off.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice

import dagster as dg

from mmdata.config import Corpus
from mmdata.engine.freshness import PartPlan, configured_parts, plan_part, plan_parts
from mmdata.errors import UserError
from mmdata.optout.state import opt_out_digest
from mmdata.score.weights_check import check_weights
from mmdata.storage.atomic import is_local
from mmdata.workspace.attempts import last_attempts
from mmdata.workspace.layout import Workspace
from pipelines.partitions import PARTS, WHY_TAG, running_parts, why_tag
from pipelines.resources import CorpusResource, refresh_settings

SETTINGS = refresh_settings()
LAST_STAGE = dg.AssetKey("features")
RUN_KEY_TAG = "dagster/run_key"
KEYS_PER_QUERY = 200

refresh_catalog = dg.define_asset_job(
    "refresh_catalog", selection=["source_catalog"], description="Look for new, changed and removed source files."
)
build_part = dg.define_asset_job(
    "build_part",
    selection=["source_rows", "media", "features"],
    description="Bring one part up to date; what is up to date already does not run again.",
)
publish_release = dg.define_asset_job(
    "publish_release",
    selection=dg.AssetSelection.assets("selection", "shards", "instructions", "release", "report")
    | dg.AssetSelection.checks(dg.AssetCheckKey(dg.AssetKey("source_catalog"), "no_failed_parts")),
    description="Make a release of the accepted parts; the other parts are named and left out.",
)
train_release = dg.define_asset_job(
    "train_release",
    selection=["aligned_model", "joint_model", "instructed_model", "evaluation"],
    description="Train the three stages on the latest release, with the settings of `train` in corpus.yaml, and "
    "measure them. Only a person starts it.",
)

compare_release = dg.define_asset_job(
    "compare_release",
    selection=["comparison"],
    description="Measure whether the latest release makes a better model than its parent and the raw corpus, with the "
    "settings of `compare` in corpus.yaml. Only a person starts it.",
)

train_filter_network = dg.define_asset_job(
    "train_filter_network",
    selection=["filter_network"],
    description="Train a data filtering network on a trusted release, and check it. Only a person starts it.",
)

running_schedule = partial(
    dg.ScheduleDefinition, execution_timezone=SETTINGS.timezone, default_status=dg.DefaultScheduleStatus.RUNNING
)
refresh = running_schedule(
    name="refresh",
    job=refresh_catalog,
    cron_schedule=SETTINGS.refresh_cron,
    description="Every night: look at the source files again (refresh.refresh_cron).",
)
release = running_schedule(
    name="release",
    job=publish_release,
    cron_schedule=SETTINGS.release_cron,
    description="Every night: make a release of the parts accepted by then (refresh.release_cron).",
)


@dg.sensor(
    job=build_part,
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Compares the catalogue with the stamps in the workspace, and starts one run for each stale part.",
)
def new_parts(context: dg.SensorEvaluationContext, corpus: CorpusResource) -> dg.SensorResult | dg.SkipReason:
    """Add partitions for new parts, and request one run for each stale part."""
    try:
        settings, workspace = corpus.open()
    except UserError as error:
        return dg.SkipReason(str(error))
    plans = read_plans(settings, workspace)
    partitions = set(context.instance.get_dynamic_partitions("parts"))
    new_names = [plan.part.name for plan in plans if plan.part.name not in partitions]
    room = settings.refresh.max_parts_per_tick - queued_runs(context.instance)
    without_weights = _why_nothing_can_be_scored(settings) if any(plan.stale for plan in plans) else None
    requests = (
        []
        if without_weights
        else [
            dg.RunRequest(run_key=key, partition_key=plan.part.name, tags={WHY_TAG: why_tag(plan.why)})
            for key, plan in wanted_plans(plans, workspace, context.instance, room).items()
        ]
    )
    return dg.SensorResult(
        run_requests=requests,
        dynamic_partitions_requests=[PARTS.build_add_request(new_names)] if new_names else [],
        skip_reason=None if requests else without_weights or _idle(settings, plans),
    )


def read_plans(corpus: Corpus, workspace: Workspace) -> list[PartPlan]:
    """The plan of every part; on an object store 32 are read at a time, because a tick has only a minute."""
    if is_local(workspace.root):
        return list(plan_parts(corpus, workspace))
    plan = partial(plan_part, corpus, workspace, opt_out=opt_out_digest(workspace))
    with ThreadPoolExecutor(32) as pool:
        return list(pool.map(plan, configured_parts(corpus, workspace)))


def queued_runs(instance: dg.DagsterInstance) -> int:
    """The number of runs of parts that wait for a slot. The daemon looks at each of them every few seconds."""
    return instance.get_runs_count(dg.RunsFilter(job_name=build_part.name, statuses=[dg.DagsterRunStatus.QUEUED]))


def run_keys(plans: list[PartPlan], instance: dg.DagsterInstance) -> dict[str, PartPlan]:
    """Each plan by its run key: part, fingerprint, and the last materialisation of the part.

    So the same plan gets a new run after each build of the part: a file that changes back is built back. One query
    reads all parts; a query for each would take minutes for 10,000.
    """
    last_built = instance.get_latest_storage_id_by_partition(LAST_STAGE, dg.DagsterEventType.ASSET_MATERIALIZATION)
    return {f"{plan.part.name}:{plan.fingerprint}:{last_built.get(plan.part.name, 'first')}": plan for plan in plans}


def wanted_plans(
    plans: list[PartPlan], workspace: Workspace, instance: dg.DagsterInstance, most: int
) -> dict[str, PartPlan]:
    """The first plans that need a run, by run key: stale, not running, not requested before, not failed in this state.

    Args:
        most: return at most this many.
    """
    if most <= 0:
        return {}
    busy = running_parts(instance)
    plans_by_key = run_keys([plan for plan in plans if plan.stale and plan.part.name not in busy], instance)
    wanted: dict[str, PartPlan] = {}
    rest = iter(plans_by_key)
    while keys := list(islice(rest, KEYS_PER_QUERY)):
        runs = instance.get_runs(filters=dg.RunsFilter(tags={RUN_KEY_TAG: keys}))
        requested = {run.tags[RUN_KEY_TAG] for run in runs}
        for key in keys:
            if key not in requested and not waits_for_a_person(plans_by_key[key], workspace):
                wanted[key] = plans_by_key[key]
                if len(wanted) == most:
                    return wanted
    return wanted


def waits_for_a_person(plan: PartPlan, workspace: Workspace) -> bool:
    """Whether the last run failed or was refused, and nothing has changed since: another would end the same way."""
    first = plan.stale[0]
    attempt = last_attempts(workspace, plan.part.name).get(first)
    if attempt is not None and attempt.error is not None and attempt.fingerprint == plan.fingerprint:
        return True
    media = workspace.part_stamp(plan.part.name, "media")
    return first == "features" and media is not None and not media.accepted


def _why_nothing_can_be_scored(corpus: Corpus) -> str | None:
    """Why no run is requested: the weights of the scorer cannot be had, so each would fail after its downloads."""
    try:
        check_weights(corpus.score, corpus.recaption)
    except UserError as error:
        return str(error)
    return None


def _idle(corpus: Corpus, plans: list[PartPlan]) -> str:
    if not plans:
        return f"no parts yet: materialise source_catalog ({len(corpus.sources)} sources)"
    stale = sum(bool(plan.stale) for plan in plans)
    if not stale:
        return f"{len(plans)} parts, all up to date"
    waiting = "running, requested before, or waiting for a person (see the check no_failed_parts)"
    return f"{len(plans)} parts, {stale} stale: {waiting}"
