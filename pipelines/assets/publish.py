"""Publish: shards, instructions, and the manifest that makes them a release."""

import dagster as dg

from mmdata.config import Corpus
from mmdata.stage import Progress, StageReport
from mmdata.workspace.layout import Workspace
from pipelines import checks
from pipelines.assets.curate import selection
from pipelines.assets.decorators import NIGHTLY, corpus_asset, stage_version
from pipelines.metadata import to_result
from pipelines.resources import CorpusResource


@corpus_asset(
    group_name="publish",
    kinds={"webdataset", "tar"},
    deps=[selection],
    code_version=stage_version("shards"),
    check_specs=[checks.SHARDS_VERIFY],
)
def shards(context: dg.AssetExecutionContext, corpus: CorpusResource) -> dg.MaterializeResult:
    """The kept samples in WebDataset tars, named by their content. A shard with the same samples is used again."""
    from mmdata.shards.stage import write_shards

    report = corpus.run(context, "shards", write_shards)
    return to_result(report, checks.shards_verify(corpus))


@corpus_asset(group_name="publish", kinds={"json"}, deps=[shards], code_version=stage_version("instructions"))
def instructions(context: dg.AssetExecutionContext, corpus: CorpusResource) -> dg.MaterializeResult:
    """Instruction records about the samples in the shards, one JSONL file per format and split."""
    from mmdata.instruct.stage import write_instructions

    return to_result(corpus.run(context, "instructions", write_instructions))


@corpus_asset(
    group_name="publish",
    kinds={"webdataset", "json"},
    deps=[instructions],
    freshness_policy=NIGHTLY,
    check_specs=[checks.NO_SUDDEN_CHANGE],
)
def release(context: dg.AssetExecutionContext, corpus: CorpusResource) -> dg.MaterializeResult:
    """The manifest of the release. It is written last; then `releases/latest` names the release."""
    from mmdata.publish.release import publish_release

    made = corpus.run(context, "release", lambda settings, workspace, _: publish_release(settings, workspace))
    return to_result(made, checks.release_check(checks.NO_SUDDEN_CHANGE, corpus))


@corpus_asset(group_name="publish", kinds={"html"}, deps=[release])
def report(context: dg.AssetExecutionContext, corpus: CorpusResource) -> dg.MaterializeResult:
    """The release on one HTML page: what came in, what was dropped and why, what it contains."""
    from mmdata.inspect.training_runs import model_folders
    from mmdata.releases.draft import read_draft
    from mmdata.report.stage import report_release

    def work(settings: Corpus, workspace: Workspace, _: Progress) -> StageReport:
        release_id = read_draft(workspace).release_id
        models = model_folders(workspace, release_id, settings.train.output)
        return report_release(workspace.release_dir(release_id), models)

    return to_result(corpus.run(context, "report", work))
