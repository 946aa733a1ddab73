"""Curate: measure every sample once, then decide which a release holds."""

import dagster as dg

from mmdata.engine.freshness import CODE_VERSIONS
from pipelines import checks
from pipelines.assets.ingest import media
from pipelines.metadata import to_result
from pipelines.partitions import PARTS
from pipelines.resources import RETRY, CorpusResource, refresh_settings

GROUP = "curate"
OWNERS = refresh_settings().owners


@dg.asset(
    deps=[media],
    group_name=GROUP,
    owners=OWNERS,
    kinds={"openclip", "pytorch"},
    tags={"scope": "part"},
    partitions_def=PARTS,
    backfill_policy=dg.BackfillPolicy.multi_run(1),
    retry_policy=RETRY,
    pool="gpu",
    code_version=str(CODE_VERSIONS["features"]),
    check_specs=[checks.SCORES_SOUND],
)
def features(context: dg.AssetExecutionContext, corpus: CorpusResource) -> dg.MaterializeResult:
    """The part's measurements: image-text score and embedding, perceptual hash, language, words, sharpness."""
    from mmdata.score.stage import score_part

    report = corpus.run_part(context, "features", score_part)
    return to_result(report, checks.scores_sound(corpus, context.partition_key))


@dg.asset(
    deps=[dg.AssetDep(features, partition_mapping=dg.AllPartitionMapping())],
    group_name=GROUP,
    owners=OWNERS,
    kinds={"polars", "faiss"},
    tags={"scope": "corpus"},
    retry_policy=RETRY,
    pool="publish",
    code_version=str(CODE_VERSIONS["selection"]),
    check_specs=[checks.NO_UID_LOST, checks.NO_SPLIT_LEAKAGE],
)
def selection(context: dg.AssetExecutionContext, corpus: CorpusResource) -> dg.MaterializeResult:
    """Every sample of the accepted parts: kept or not and why, how often it is repeated, in which split.

    Parts that failed or were refused are left out by name; the rest is released.
    """
    from mmdata.select.stage import select_samples

    report = corpus.run(context, "selection", select_samples)
    return to_result(report, checks.no_uid_lost(corpus), checks.no_split_leakage(corpus))
