"""Ingest: the source files, their rows, and the media that the rows point at."""

import dagster as dg

from mmdata.engine.freshness import configured_parts
from pipelines import checks
from pipelines.assets.decorators import NIGHTLY, corpus_asset, part_asset, stage_version
from pipelines.metadata import to_result
from pipelines.partitions import sync_parts
from pipelines.resources import CorpusResource


@corpus_asset(group_name="ingest", kinds={"python", "json"}, freshness_policy=NIGHTLY)
def source_catalog(context: dg.AssetExecutionContext, corpus: CorpusResource) -> dg.MaterializeResult:
    """Lists the source files, which of them are new, changed or gone, and the parts that they are cut into.

    The schedule `refresh` runs it every night. New parts become partitions, and the sensor `new_parts` starts a run
    for each of them.
    """
    from mmdata.inspect.nightly_look import refresh_catalog

    report = corpus.run(context, "source_catalog", lambda settings, workspace, _: refresh_catalog(settings, workspace))
    sync_parts(context.instance, [part.name for part in configured_parts(*corpus.open())])
    return to_result(report)


@part_asset(group_name="ingest", kinds={"parquet"}, code_version=stage_version("rows"), deps=[source_catalog])
def source_rows(context: dg.AssetExecutionContext, corpus: CorpusResource) -> dg.MaterializeResult:
    """The rows of a part in one schema: uid, canonical URL, caption. Bad rows are kept, with the reason."""
    from mmdata.takedown.read_part import read_part

    return to_result(corpus.run_part(context, "rows", read_part))


@part_asset(
    group_name="ingest",
    kinds={"img2dataset", "tar"},
    code_version=stage_version("media"),
    pool="download",
    deps=[source_rows],
    check_specs=[checks.DOWNLOAD_SHARE],
)
def media(context: dg.AssetExecutionContext, corpus: CorpusResource) -> dg.MaterializeResult:
    """The media of a part: downloaded with access checks, resized, one tar per slice.

    Downloads that failed are tried again later.
    """
    from mmdata.download.stage import fetch_part

    report = corpus.run_part(context, "media", fetch_part)
    return to_result(report, checks.download_share(corpus, context.partition_key))
