"""The same graph without a server: every stale part in turn, then a release of what is accepted."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import dagster as dg

from mmdata.engine.freshness import configured_parts, plan_part, plan_parts
from mmdata.errors import DataError, MMDataError, UserError
from mmdata.stage import StageReport
from pipelines.definitions import defs
from pipelines.instance import build_tags, open_instance
from pipelines.partitions import WHY_TAG, running_parts, sync_parts, why_tag
from pipelines.resources import CorpusResource, Watcher, watched_by


@dataclass(frozen=True, slots=True)
class Build:
    """What a build came to.

    Args:
        reports: of every stage that ran, in order.
        failed: part -> why it is not in the release; the rest is.
        release_id: the latest release after it; None before the first.
        error: why no release could be made; None: it was, or none was asked for.
    """

    reports: list[StageReport]
    failed: dict[str, str]
    release_id: str | None
    error: str | None = None


class BuildWatcher(Watcher, Protocol):
    """Follows the build part by part; what it draws is its own affair."""

    def plan(self, parts: Sequence[str]) -> None:
        """These parts will run, in this order."""

    def begin(self, part: str | None) -> None:
        """A part begins; None: the release."""


@dataclass
class _Listener:
    """Collects what the stages say, and passes it on."""

    watcher: Watcher | None
    reports: list[StageReport] = field(default_factory=list)
    error: BaseException | None = None

    def started(self, stage: str, part: str | None) -> None:
        if self.watcher:
            self.watcher.started(stage, part)

    def progress(self, stage: str, done: int, total: int) -> None:
        if self.watcher:
            self.watcher.progress(stage, done, total)

    def finished(self, report: StageReport) -> None:
        self.reports.append(report)
        if self.watcher:
            self.watcher.finished(report)

    def waits(self, stage: str, part: str | None, holder: str) -> None:
        if self.watcher:
            self.watcher.waits(stage, part, holder)

    def failed(self, stage: str, part: str | None, error: BaseException) -> None:
        self.error = error
        if self.watcher:
            self.watcher.failed(stage, part, error)


def build(
    config_path: Path,
    *,
    parts: Sequence[str] | None = None,
    sources_only: bool = False,
    verbose: bool = False,
    watcher: BuildWatcher | None = None,
) -> Build:
    """Look at the sources, bring stale parts up to date, make a release.

    Args:
        parts: work on these only; the release still holds every accepted part.
        sources_only: stop after the look at the sources.
        verbose: let Dagster write its log to stderr.

    Raises:
        UserError: corpus.yaml is wrong, or a part is not known.
        DataError: the sources cannot be looked at. A part or a release that fails raises nothing: see `Build`.
    """
    corpus_resource = CorpusResource(config_path=str(config_path.absolute()))
    corpus, workspace = corpus_resource.open()
    listener = _Listener(watcher)
    with open_instance(workspace) as instance, watched_by(listener):
        runner = _Runner(instance, corpus_resource, listener, verbose)
        runner.run("refresh_catalog")
        known = configured_parts(corpus, workspace)
        sync_parts(instance, [part.name for part in known])
        if unknown := set(parts or ()).difference(part.name for part in known):
            raise UserError(f"no part {', '.join(sorted(unknown))} in this corpus; `mmdata status` lists the parts")
        if sources_only:
            return Build(listener.reports, {}, workspace.latest())
        stale = [plan.part.name for plan in plan_parts(corpus, workspace) if plan.stale]
        chosen = [name for name in stale if parts is None or name in parts]
        if watcher:
            watcher.plan(chosen)
        failed: dict[str, str] = {}
        for name in chosen:
            if watcher:
                watcher.begin(name)
            plan = plan_part(corpus, workspace, workspace.part(name))
            if not plan.stale:
                continue  # a run of the UI was quicker
            if name in running_parts(instance):
                failed[name] = f"part {name}: another run works on it. Remedy: wait for it, or stop it in the UI."
                continue
            try:
                runner.run("build_part", name, plan.why)
            except DataError as caught:
                failed[name] = str(caught)
        if watcher:
            watcher.begin(None)
        error = None
        try:
            runner.run("publish_release")
        except DataError as caught:
            error = str(caught)
        return Build(listener.reports, failed, workspace.latest(), error)


def train(config_path: Path, *, verbose: bool = False, watcher: Watcher | None = None) -> list[StageReport]:
    """Train the three stages on the latest release, and evaluate them: the job `train_release`.

    Args:
        verbose: let Dagster write its log to stderr.

    Raises:
        UserError: corpus.yaml is wrong, or there is no release.
        DataError: a stage failed, or a check of a model.
    """
    corpus_resource = CorpusResource(config_path=str(config_path.absolute()))
    _, workspace = corpus_resource.open()
    listener = _Listener(watcher)
    with open_instance(workspace) as instance, watched_by(listener):
        _Runner(instance, corpus_resource, listener, verbose).run("train_release")
    return listener.reports


@dataclass(frozen=True)
class _Runner:
    instance: dg.DagsterInstance
    corpus: CorpusResource
    listener: _Listener
    verbose: bool

    def run(self, job: str, part: str | None = None, why: str = "") -> None:
        """Run a job in this process. Raises what its stage raised, or DataError naming the check that stopped it."""
        self.listener.error = None
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
        if isinstance(self.listener.error, KeyboardInterrupt) or _interrupted(result):
            raise KeyboardInterrupt
        if isinstance(self.listener.error, UserError) and part is not None:
            raise DataError(str(self.listener.error)) from self.listener.error
        if isinstance(self.listener.error, MMDataError):
            raise self.listener.error
        raise DataError(_why(result, job)) from self.listener.error


def _interrupted(result: dg.ExecuteInProcessResult) -> bool:
    """Whether a signal ended the run between two steps; Dagster swallows it."""
    ends = result.filter_events(lambda event: event.event_type is dg.DagsterEventType.RUN_FAILURE)
    reasons = {event.job_failure_data.failure_reason for event in ends}
    return any(reason is not None and reason.name == "UNEXPECTED_TERMINATION" for reason in reasons)


def _why(result: dg.ExecuteInProcessResult, job: str) -> str:
    blocked = [
        f"check {check.check_name} of {check.asset_key.to_user_string()}: {check.description}"
        for check in result.get_asset_check_evaluations()
        if not check.passed and check.blocking
    ]
    if blocked:
        return "; ".join(blocked)
    for event in result.filter_events(lambda event: event.is_step_failure):
        error = event.step_failure_data.error
        if error is not None:
            cause = error.cause or error
            return cause.message.strip()
    return f"the run of {job} failed; `mmdata ui` shows its log"
