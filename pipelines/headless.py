"""The graph without a server: every stale part in turn, then a release of the accepted parts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from mmdata.config import Corpus
from mmdata.engine.freshness import configured_parts, plan_part, plan_parts
from mmdata.errors import DataError, MMDataError, UserError, describe_machine_error
from mmdata.releases.holds import read_hold
from mmdata.score.scorer import resolve_device
from mmdata.score.weights_check import check_weights
from mmdata.sources.catalog import bad_sources
from mmdata.stage import StageReport
from mmdata.workspace.lease import LeaseHeld, LeaseLost
from pipelines.definitions import defs
from pipelines.home import record_build
from pipelines.instance import build_tags, open_instance
from pipelines.partitions import WHY_TAG, sync_parts, why_tag
from pipelines.resources import CorpusResource
from pipelines.watcher import Build, ReportCollector, Watcher, watched_by


def build(
    config_path: Path,
    *,
    parts: Sequence[str] | None = None,
    sources_only: bool = False,
    verbose: bool = False,
    watcher: Watcher | None = None,
) -> Build:
    """Look at the sources, bring stale parts up to date, make a release.

    A part that another build works on is waited for (`engine.wait_s`). If that build still holds it then, no release is
    made: it would lose the samples of the part.

    Args:
        parts: work on these only; the release still holds every accepted part.
        sources_only: stop after the look at the sources.
        verbose: let Dagster write its log to stderr.

    Raises:
        UserError: corpus.yaml is wrong, a part is not known, or the scorer cannot be loaded.
        DataError: the sources cannot be looked at. A part or a release that fails raises nothing: see `Build`.
    """
    resource = CorpusResource(config_path=str(config_path.absolute()))
    corpus, workspace = resource.open()
    watcher, collector = watcher or Watcher(), ReportCollector()
    with open_instance(workspace) as instance, watched_by(collector, watcher):
        runner = _JobRunner(instance, resource, collector, verbose)
        runner.run("refresh_catalog")
        bad = bad_sources(corpus.sources, workspace.catalog().files)
        names = [part.name for part in configured_parts(corpus, workspace)]
        sync_parts(instance, names)
        if unknown := set(parts or ()).difference(names):
            raise UserError(f"no part {', '.join(sorted(unknown))} in this corpus; `mmdata status` lists the parts")
        if sources_only:
            return Build(collector.reports, {}, workspace.latest(), bad_sources=bad)
        stale = [plan.part.name for plan in plan_parts(corpus, workspace) if plan.stale]
        chosen = [name for name in stale if parts is None or name in parts]
        if chosen:
            _check_scorer(corpus)
        watcher.plan(chosen)
        failed: dict[str, str] = {}
        busy: list[str] = []
        has_user_error = False
        for name in chosen:
            watcher.begin(name)
            plan = plan_part(corpus, workspace, workspace.part(name))
            if not plan.stale:
                continue  # another build has done it meanwhile
            try:
                runner.run("build_part", name, plan.why)
            except _PartBusy as error:
                failed[name] = str(error)
                busy.append(name)
            except MMDataError as error:
                failed[name] = str(error)
                has_user_error = has_user_error or isinstance(error, UserError)
        release_error = _why_no_release(busy)
        if release_error is None:
            watcher.begin(None)
            try:
                runner.run("publish_release")
            except MMDataError as error:
                release_error = str(error)
                has_user_error = has_user_error or isinstance(error, UserError)
        release_id = workspace.latest()
    if release_id is not None and release_error is None and not failed and not bad and parts is None:
        record_build(workspace, release_id)
    is_held = release_error is None and read_hold(workspace) is not None
    return Build(collector.reports, failed, release_id, release_error, is_held, bad, has_user_error)


def train(config_path: Path, *, verbose: bool = False, watcher: Watcher | None = None) -> list[StageReport]:
    """Train the three stages on the latest release, and evaluate them: the job `train_release`.

    Args:
        verbose: let Dagster write its log to stderr.

    Raises:
        UserError: corpus.yaml is wrong, or there is no release.
        DataError: a stage failed, or a check of a model.
    """
    resource = CorpusResource(config_path=str(config_path.absolute()))
    _, workspace = resource.open()
    collector = ReportCollector()
    with open_instance(workspace) as instance, watched_by(collector, watcher or Watcher()):
        _JobRunner(instance, resource, collector, verbose).run("train_release")
    return collector.reports


def _check_scorer(corpus: Corpus) -> None:
    """Raise UserError if the scorer will not load, before anything is fetched for it."""
    check_weights(corpus.score, corpus.recaption)
    if corpus.engine.backend == "local" and corpus.score.device not in ("auto", "cpu"):
        resolve_device(corpus.score.device)


class _PartBusy(DataError):
    """Another build holds a part, or has taken it over."""


def _why_no_release(busy: Sequence[str]) -> str | None:
    """Why no release may be made now: another build works on parts of it; None if it may."""
    if not busy:
        return None
    return (
        f"another build works on {', '.join(busy)}, and a release without them would lose their samples. Remedy: run "
        "`mmdata build` again when it has ended, or let this build wait longer (engine.wait_s)"
    )


@dataclass(frozen=True)
class _JobRunner:
    """Runs jobs of the graph in this process."""

    instance: dg.DagsterInstance
    corpus: CorpusResource
    collector: ReportCollector
    verbose: bool

    def run(self, job: str, part: str | None = None, why: str = "") -> None:
        """Run a job. Raises the error of the stage that failed, or DataError naming the check that stopped the job."""
        self.collector.error = None
        loggers: dict[str, Any] = {"console": {"config": {"log_level": "INFO" if self.verbose else "CRITICAL"}}}
        result = defs.resolve_job_def(job).execute_in_process(
            instance=self.instance,
            partition_key=part,
            resources={"corpus": self.corpus},
            run_config={"loggers": loggers},
            tags=build_tags() | ({WHY_TAG: why_tag(why)} if why else {}),
            raise_on_error=False,
        )
        if result.success:
            return
        error = self.collector.error
        if isinstance(error, KeyboardInterrupt) or _was_interrupted(result):
            raise KeyboardInterrupt
        if isinstance(error, LeaseHeld | LeaseLost) and part is not None:
            raise _PartBusy(str(error)) from error
        if isinstance(error, MMDataError):
            raise error
        if error is not None and (refusal := describe_machine_error(error)):
            raise UserError(refusal) from error
        raise DataError(_reason_of_failure(result, job)) from error


def _was_interrupted(result: dg.ExecuteInProcessResult) -> bool:
    """Whether a signal ended the run between two steps, which Dagster does not raise."""
    ends = result.filter_events(lambda event: event.event_type is dg.DagsterEventType.RUN_FAILURE)
    reasons = {event.job_failure_data.failure_reason for event in ends}
    return any(reason is not None and reason.name == "UNEXPECTED_TERMINATION" for reason in reasons)


def _reason_of_failure(result: dg.ExecuteInProcessResult, job: str) -> str:
    """The checks that stopped a run; else the error of the step that failed."""
    blocking_checks = [
        f"check {check.check_name} of {check.asset_key.to_user_string()}: {check.description}"
        for check in result.get_asset_check_evaluations()
        if not check.passed and check.blocking
    ]
    if blocking_checks:
        return "; ".join(blocking_checks)
    for event in result.filter_events(lambda event: event.is_step_failure):
        error = event.step_failure_data.error
        if error is not None:
            cause = error.cause or error
            return cause.message.strip()
    return f"the run of {job} failed; `mmdata ui` shows its log"
