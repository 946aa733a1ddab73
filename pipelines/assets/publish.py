"""Publish: shards, instructions, and the manifest that makes them a release."""

from datetime import timedelta

import dagster as dg

from mmdata.engine.freshness import CODE_VERSIONS
from pipelines import checks
from pipelines.assets.curate import selection
from pipelines.metadata import to_result
from pipelines.resources import RETRY, CorpusResource, refresh_settings

GROUP = "publish"
OWNERS = refresh_settings().owners


@dg.asset(
    deps=[selection],
    group_name=GROUP,
    owners=OWNERS,
    kinds={"webdataset", "tar"},
    tags={"scope": "corpus"},
    retry_policy=RETRY,
    pool="publish",
    code_version=str(CODE_VERSIONS["shards"]),
    check_specs=[checks.SHARDS_VERIFY],
)
def shards(context: dg.AssetExecutionContext, corpus: CorpusResource) -> dg.MaterializeResult:
    """The kept samples in WebDataset tars named by their content; a shard whose samples are unchanged is reused."""
    from mmdata.shards.stage import write_shards

    report = corpus.run(context, "shards", write_shards)
    return to_result(report, checks.shards_verify(corpus))


@dg.asset(
    deps=[shards],
    group_name=GROUP,
    owners=OWNERS,
    kinds={"json"},
    tags={"scope": "corpus"},
    retry_policy=RETRY,
    pool="publish",
    code_version=str(CODE_VERSIONS["instructions"]),
)
def instructions(context: dg.AssetExecutionContext, corpus: CorpusResource) -> dg.MaterializeResult:
    """Instruction records over the shards, one JSONL file a form and split."""
    from mmdata.instruct.stage import write_instructions

    return to_result(corpus.run(context, "instructions", write_instructions))


@dg.asset(
    deps=[instructions],
    group_name=GROUP,
    owners=OWNERS,
    kinds={"webdataset", "json"},
    tags={"scope": "corpus"},
    retry_policy=RETRY,
    pool="publish",
    freshness_policy=dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=50), warn_window=timedelta(hours=26)),
    check_specs=[checks.NO_SUDDEN_CHANGE],
)
def release(context: dg.AssetExecutionContext, corpus: CorpusResource) -> dg.MaterializeResult:
    """The manifest, written last, and with it the release; then `releases/latest` names it."""
    from mmdata.publish.release import publish_release

    made = corpus.run(context, "release", lambda settings, workspace, _: publish_release(settings, workspace))
    return to_result(made, checks.no_sudden_change(corpus))


@dg.asset(
    deps=[release],
    group_name=GROUP,
    owners=OWNERS,
    kinds={"html"},
    tags={"scope": "corpus"},
    retry_policy=RETRY,
    pool="publish",
)
def report(context: dg.AssetExecutionContext, corpus: CorpusResource) -> dg.MaterializeResult:
    """The release on one page: what came in, what was dropped and why, what is in it."""
    from mmdata.report.stage import write_report

    return to_result(
        corpus.run(
            context,
            "report",
            lambda settings, workspace, _: write_report(settings, workspace, workspace.draft()["release_id"]),
        )
    )
