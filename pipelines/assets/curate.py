"""Curate: measure every sample once, then decide which samples a release holds."""

import dagster as dg

from pipelines import checks
from pipelines.assets.decorators import corpus_asset, part_asset, stage_version
from pipelines.assets.ingest import media
from pipelines.metadata import to_result
from pipelines.resources import CorpusResource


@part_asset(
    group_name="curate",
    kinds={"openclip", "pytorch"},
    code_version=stage_version("features"),
    pool="gpu",
    deps=[media],
    check_specs=[checks.SCORES_SOUND],
)
def features(context: dg.AssetExecutionContext, corpus: CorpusResource) -> dg.MaterializeResult:
    """The measurements of a part: image-text score and embedding, perceptual hash, language, words, sharpness."""
    from mmdata.score.stage import score_part

    report = corpus.run_part(context, "features", score_part)
    return to_result(report, checks.scores_sound(corpus, context.partition_key))


@corpus_asset(
    group_name="curate",
    kinds={"polars", "faiss"},
    deps=[dg.AssetDep(features, partition_mapping=dg.AllPartitionMapping())],
    code_version=stage_version("selection"),
    check_specs=[checks.NO_UID_LOST, checks.NO_SPLIT_LEAKAGE],
)
def selection(context: dg.AssetExecutionContext, corpus: CorpusResource) -> dg.MaterializeResult:
    """For every sample of the accepted parts: whether it is kept, and why not; how often it is repeated; its split.

    Parts that failed or were refused are named and left out; the other parts are released.
    """
    from mmdata.select.stage import select_samples

    report = corpus.run(context, "selection", select_samples)
    results = [checks.release_check(spec, corpus) for spec in (checks.NO_UID_LOST, checks.NO_SPLIT_LEAKAGE)]
    return to_result(report, *results)
