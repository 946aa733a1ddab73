"""The corpus as a Dagster resource: it reads corpus.yaml and runs the functions of the stages."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import dagster as dg
from pydantic import Field

from mmdata.config import Corpus, Refresh
from mmdata.config.load import load_corpus
from mmdata.display import markdown
from mmdata.engine.freshness import PartPlan, plan_part
from mmdata.errors import UserError
from mmdata.observe import logs, metrics_files
from mmdata.score.weights_check import check_weights
from mmdata.stage import Progress, StageReport
from mmdata.workspace.attempts import begin_attempt, end_attempt, fail_attempt
from mmdata.workspace.layout import PartStage, Workspace
from pipelines.stage_run import announced, finished, lease_checking_progress, stage_lease

CONFIG_VARIABLE = "MMDATA_CONFIG"
SCORED = dg.AssetKey("features")
POOLS = {"download": 2, "gpu": 1, "publish": 1}
"""Slots of each pool: how many runs may be in its stages at once. Change them in the UI, Deployment > Concurrency."""


class CorpusResource(dg.ConfigurableResource):
    """A corpus and its workspace."""

    config_path: str | None = Field(default=None, description="Path of corpus.yaml; MMDATA_CONFIG names it by default.")

    def open(self) -> tuple[Corpus, Workspace]:
        """Read corpus.yaml. Raises UserError where it is not named, missing or wrong."""
        path = self.config_path or os.environ.get(CONFIG_VARIABLE)
        if not path:
            raise UserError(
                f"no corpus is named. Remedy: set {CONFIG_VARIABLE}=/path/to/corpus.yaml, "
                "or start the UI with `mmdata ui -c corpus.yaml`"
            )
        corpus = load_corpus(path)
        logs.configure(corpus.observe)
        metrics_files.join()
        return corpus, Workspace(corpus.workspace)

    def run(
        self,
        context: dg.AssetExecutionContext,
        stage: str,
        function: Callable[[Corpus, Workspace, Progress], StageReport],
    ) -> StageReport:
        """Run a stage over the corpus."""
        with announced(stage, None) as started_at:
            corpus, workspace = self.open()
            with stage_lease(context, workspace, stage, None, corpus.engine.wait_s) as lease:
                return finished(function(corpus, workspace, lease_checking_progress(context, lease)), started_at)

    def run_part(
        self, context: dg.AssetExecutionContext, stage: PartStage, function: Callable[..., StageReport]
    ) -> StageReport:
        """Run a stage on the run's part; the workspace keeps a note of how the attempt ended."""
        part = context.partition_key
        with announced(stage, part) as started_at:
            corpus, workspace = self.open()
            entry = workspace.part(part)
            chosen = context.run.asset_selection  # empty: every asset of the job
            if stage != "features" and (not chosen or SCORED in chosen):
                check_weights(corpus.score, corpus.recaption)
            with stage_lease(context, workspace, stage, part, corpus.engine.wait_s) as lease:
                why = _reason(plan_part(corpus, workspace, entry), stage)
                context.log.info(f"{stage} of {part} runs: {why}")
                attempt = begin_attempt(workspace, part, stage)
                try:
                    report = function(corpus, workspace, part, progress=lease_checking_progress(context, lease))
                except Exception as error:
                    from mmdata.engine.part_run import describe

                    plan = plan_part(corpus, workspace, entry)
                    fail_attempt(workspace, part, stage, attempt, describe(error), plan.fingerprint)
                    raise
                end_attempt(workspace, part, stage)
            return finished(replace(report, text={**report.text, "why it ran": markdown(why)}), started_at)


@cache
def refresh_settings() -> Refresh:
    """Section `refresh` of corpus.yaml, which the code location needs as it loads; the defaults where it has none.

    An error of corpus.yaml is logged here, and raised by every use of the resource.
    """
    try:
        return CorpusResource().open()[0].refresh
    except UserError as error:
        dg.get_dagster_logger("pipelines").warning("%s", error)
        return Refresh()


def _reason(plan: PartPlan, stage: PartStage) -> str:
    """Why a stage of a part runs, as its plan says at this moment."""
    if stage not in plan.stale:
        return "it was asked for; all of it is up to date"
    return plan.why if plan.stale[0] == stage else f"it follows {plan.stale[0]}"
