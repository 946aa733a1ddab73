"""Ingest: what the sources say, and what the web answers."""

from datetime import timedelta

import dagster as dg

from mmdata.engine.freshness import CODE_VERSIONS, configured_parts
from pipelines import checks
from pipelines.metadata import to_result
from pipelines.partitions import PARTS, sync_parts
from pipelines.resources import RETRY, CorpusResource, refresh_settings

GROUP = "ingest"
OWNERS = refresh_settings().owners


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"python", "json"},
    tags={"scope": "corpus"},
    retry_policy=RETRY,
    pool="publish",
    freshness_policy=dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=50), warn_window=timedelta(hours=26)),
)
def source_catalog(context: dg.AssetExecutionContext, corpus: CorpusResource) -> dg.MaterializeResult:
    """Which source files there are, which are new, changed or gone, and the parts cut from them.

    Run nightly by the schedule `refresh`. New parts become partitions; the sensor `new_parts` then asks for their runs.
    """
    from mmdata.inspect.nightly_look import refresh_catalog

    report = corpus.run(context, "source_catalog", lambda settings, workspace, _: refresh_catalog(settings, workspace))
    sync_parts(context.instance, [part.name for part in configured_parts(*corpus.open())])
    return to_result(report)


@dg.asset(
    deps=[source_catalog],
    group_name=GROUP,
    owners=OWNERS,
    kinds={"parquet"},
    tags={"scope": "part"},
    partitions_def=PARTS,
    backfill_policy=dg.BackfillPolicy.multi_run(1),
    retry_policy=RETRY,
    code_version=str(CODE_VERSIONS["rows"]),
)
def source_rows(context: dg.AssetExecutionContext, corpus: CorpusResource) -> dg.MaterializeResult:
    """The part's rows in one schema: uid, canonical URL, caption; bad rows are kept with a reason."""
    from mmdata.sources.stage import read_part

    return to_result(corpus.run_part(context, "rows", read_part))


@dg.asset(
    deps=[source_rows],
    group_name=GROUP,
    owners=OWNERS,
    kinds={"img2dataset", "tar"},
    tags={"scope": "part"},
    partitions_def=PARTS,
    backfill_policy=dg.BackfillPolicy.multi_run(1),
    retry_policy=RETRY,
    pool="download",
    code_version=str(CODE_VERSIONS["media"]),
    check_specs=[checks.DOWNLOAD_SHARE],
)
def media(context: dg.AssetExecutionContext, corpus: CorpusResource) -> dg.MaterializeResult:
    """The part's pictures, fetched behind the guard, resized, in one tar a slice; what failed waits for its retry."""
    from mmdata.download.stage import fetch_part

    report = corpus.run_part(context, "media", fetch_part)
    return to_result(report, checks.download_share(corpus, context.partition_key))
