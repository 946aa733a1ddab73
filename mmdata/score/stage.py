"""The features stage: scores, hashes, sizes and languages of all rows of a part, a slice at a time."""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import polars as pl
import pyarrow as pa

from mmdata.config import Corpus, Recaption, Score
from mmdata.config.recaption import NO_CAPTIONS
from mmdata.config.scorers import is_local_checkpoint
from mmdata.documents import with_words
from mmdata.engine import freshness, stage_fingerprints
from mmdata.engine.part_run import SliceResult, run_part_stage
from mmdata.errors import DataError
from mmdata.fingerprint import fingerprint
from mmdata.media.cores import cores
from mmdata.observe import logs
from mmdata.score.feature_reuse import (
    captions_to_embed,
    features_metadata,
    lacks_text_embedding,
    reusable_rows,
    with_text_embeddings,
)
from mmdata.score.features_reader import feature_counts, read_slice_table, scorer_mark, unsound_reason
from mmdata.score.features_table import features_table
from mmdata.score.further_scores import further_scores, with_further_scores
from mmdata.score.generated_captions import with_generated_captions
from mmdata.score.picture_scoring import score_pictures
from mmdata.score.pretrained import check_names
from mmdata.score.score_report import features_report
from mmdata.score.scorer import load_scorer
from mmdata.score.sound_scoring import score_sounds
from mmdata.stage import Progress, StageReport, silent
from mmdata.storage.tables import read_table
from mmdata.workspace.layout import PartStage, PartStamp, SliceStamp, Workspace, redo_remedy

MAX_NAN_SHARE = 0.1  # of pictures without finite numbers; above it the model or its precision is at fault
ROW_COLUMNS = ("uid", "kind", "caption", "problem", "start_s", "extra")
MEDIA_COLUMNS = (
    *("uid", "status", "sha256"),
    *("ext", "offset", "length", "further", "audio_s", "faces"),
    *("original_width", "original_height", "width", "height"),
)
_log = logs.logger(__name__)

SliceProgress = Callable[[str, int], None]
"""Called with a slice's name and the number of its samples that are done."""


def score_part(corpus: Corpus, workspace: Workspace, part_name: str, progress: Progress = silent) -> StageReport:
    """Bring the features of a part up to date: `features/*.parquet`, their stamps and the part's stamp.

    Args:
        progress: called with samples; with several workers only at the end, since they cannot call it.

    Raises:
        DataError: rows or media are not finished.
        PartFailed: some slices failed; the others are kept.
        UserError: the scorer cannot be loaded.
    """
    part = workspace.part(part_name)
    slice_stamp = functools.partial(workspace.slice_stamp, part_name)
    rows, media = _finished_stamp(workspace, part_name, "rows"), _finished_stamp(workspace, part_name, "media")
    inputs = _slice_inputs(workspace, part_name, rows, media)
    settings = stage_fingerprints.stage_settings(corpus, part, "features")
    _clear_stamps_of_changed_checkpoint(workspace, part_name, corpus.score, rows.slices)
    in_this_process = corpus.engine.in_this_process
    lacks_vectors = functools.partial(freshness.lacks_text_vectors, corpus)
    if _has_stale_slice(
        workspace, part_name, settings, inputs, lacks_vectors
    ):  # a wrong model is one error, not one per slice
        if in_this_process:
            load_scorer(corpus.score, beside=len(corpus.score.networks))
            further_scores(corpus.score, corpus.score.threads or cores())
        else:
            check_names(corpus.score)
    row_counts = [stamp.rows if stamp else 0 for stamp in (slice_stamp("rows", name) for name in rows.slices)]
    rows_before = dict(zip(rows.slices, itertools.accumulate(row_counts, initial=0), strict=False))

    def report_progress(slice_name: str, done: int) -> None:
        progress("features", rows_before[slice_name] + done, rows.rows)

    privacy = corpus.privacy
    counts_faces = privacy.count_faces and not privacy.blur_faces  # blurred faces were counted before the blurring
    result = run_part_stage(
        workspace,
        part_name,
        "features",
        settings=settings,
        inputs=inputs,
        upstream=stage_fingerprints.features_input(rows.digest, media.digest),
        work=functools.partial(
            score_slice,
            workspace,
            part_name,
            corpus.score,
            min_face_score=privacy.min_face_score if counts_faces else None,
            measures=stage_fingerprints.measure_settings(corpus),
            recaption=corpus.recaption,
            seed=corpus.seed,
            workers=corpus.engine.workers,
            advance=report_progress if in_this_process else _no_progress,  # closures cannot be sent to workers
        ),
        engine=corpus.engine,
        named=stage_fingerprints.named_settings(corpus, part, "features"),
        is_due=lacks_vectors,
        accept=functools.partial(refusal, workspace, part_name),
    )
    progress("features", rows.rows, rows.rows)
    return features_report(corpus, workspace, part_name, result)


def _no_progress(slice_name: str, done: int) -> None:
    """Report nothing."""


def score_slice(
    workspace: Workspace,
    part_name: str,
    score: Score,
    slice_name: str,
    *,
    min_face_score: float | None = None,
    measures: Sequence[Any] = (),
    recaption: Recaption = NO_CAPTIONS,
    seed: int = 0,
    workers: int = 1,
    advance: SliceProgress = _no_progress,
) -> SliceResult:
    """Make the features table of a slice from its rows and media; what an earlier run measured is reused.

    Args:
        measures: what beside the scorer decides what is measured (`stage_fingerprints.measure_settings`).
        seed: of the draw that chooses samples to caption.
        workers: processes that share this machine's cores.

    Raises:
        DataError: the two tables do not hold the same uids, or the tar is missing.
    """
    started = time.perf_counter()
    rows = read_slice_table(workspace, part_name, "rows", slice_name, ROW_COLUMNS)
    media_table = read_table(workspace.table(part_name, "media", slice_name), MEDIA_COLUMNS)
    media = pl.DataFrame(media_table)
    if not rows["uid"].equals(media["uid"]):
        raise DataError(
            f"{workspace.table(part_name, 'media', slice_name)}: its uids are not those of the slice's rows. "
            f"{redo_remedy(part_name, 'media', slice_name)}"
        )
    threads = score.threads or max(1, cores() // workers)
    if workers > 1:
        import torch

        torch.set_num_threads(max(1, cores() // workers))
    scorer = load_scorer(score, beside=len(score.networks))
    metadata = features_metadata(scorer, media_table.schema.metadata or {}, measures)
    samples = with_words(rows.hstack(media.drop("uid")))
    reused = reusable_rows(workspace, part_name, slice_name, samples, metadata)
    new = samples.filter(~pl.col("uid").is_in(reused["uid"].to_pylist()))
    tar = workspace.media_tar(part_name, slice_name, media_table.schema.metadata)
    keep_texts = score.text_embeddings
    captions = captions_to_embed(samples, reused, keep_texts)
    pictures = score_pictures(
        new, captions, tar, scorer, threads, lambda done: advance(slice_name, len(reused) + done), min_face_score
    )
    sounds = score_sounds(new, tar, score, threads)
    tables = [
        features_table(new, pictures, sounds, keep_texts),
        *with_text_embeddings(reused, samples, pictures.texts, keep_texts),
    ]
    table = pa.concat_tables(tables).sort_by("uid")
    table = table.replace_schema_metadata(metadata)
    made: dict[str, int] = {}
    scores = further_scores(score, threads)
    path = workspace.table(part_name, "features", slice_name)
    earlier = read_table(path) if (scores or recaption.is_on) and path.exists() else None
    if scores:
        table, made = with_further_scores(table, samples, tar, earlier, scores, threads)
    if recaption.is_on:
        table, captions_made = with_generated_captions(table, samples, tar, earlier, recaption, seed, scorer)
        made |= captions_made
    problems_by_uid = zip(table["uid"].to_pylist(), table["problem"].to_pylist(), strict=True)
    logs.samples(_log, "samples have a problem", ((p, {"uid": uid}) for uid, p in problems_by_uid if p is not None))
    counts, problems = feature_counts(table, samples)
    filled = int(lacks_text_embedding(reused).sum()) if keep_texts else 0
    return SliceResult(
        table,
        counts=counts | {"pictures": len(pictures.measures), "reused": len(reused), "text_filled": filled, **made},
        reasons=problems,
        numbers={"seconds": time.perf_counter() - started},
    )


def refusal(workspace: Workspace, part_name: str, slices: Mapping[str, SliceStamp]) -> str | None:
    """Why a part's features may not enter a release, or None; judged by the published tables."""
    with_media = sum(stamp.counts.get("with_media", 0) for stamp in slices.values())
    embedded = sum(stamp.counts.get("embedded", 0) for stamp in slices.values())
    nan = sum(stamp.reasons.get("nan_score", 0) for stamp in slices.values())
    if with_media and not embedded:
        return f"features: none of {with_media} fetched pictures could be scored"
    if nan > MAX_NAN_SHARE * with_media:
        return f"features: the model gave no finite numbers for {nan} of {with_media} pictures"
    for name in slices:
        features = read_slice_table(workspace, part_name, "features", name, ["uid", "clip_score"])
        row_uids = read_slice_table(workspace, part_name, "rows", name, ["uid"])["uid"]
        if reason := unsound_reason(features, row_uids):
            return f"features: {workspace.table(part_name, 'features', name)}: {reason}"
    return None


def _clear_stamps_of_changed_checkpoint(
    workspace: Workspace, part_name: str, score: Score, slice_names: Sequence[str]
) -> None:
    """Make slices stale that another scorer made: a checkpoint on disk may change while its settings stay the same."""
    if not is_local_checkpoint(score):
        return
    for name in slice_names:
        path = workspace.table(part_name, "features", name)
        if path.exists():
            scorer = scorer_mark(read_table(path, ["uid"]).schema.metadata)
            if scorer is None or scorer.fingerprint != load_scorer(score, len(score.networks)).fingerprint:
                workspace.clear_slice_stamp(part_name, "features", name)


def _finished_stamp(workspace: Workspace, part_name: str, stage: PartStage) -> PartStamp:
    stamp = workspace.part_stamp(part_name, stage)
    if stamp is None:
        raise DataError(f"part {part_name}: {stage} is not finished. {redo_remedy(part_name, stage)}")
    return stamp


def _slice_inputs(workspace: Workspace, part_name: str, rows: PartStamp, media: PartStamp) -> dict[str, str]:
    """Slice name -> digest of its rows and media."""
    if rows.slices != media.slices:
        raise DataError(f"part {part_name}: media is older than rows. Remedy: `mmdata build` brings it up to date.")
    inputs = {}
    for name in rows.slices:
        rows_stamp = workspace.slice_stamp(part_name, "rows", name)
        media_stamp = workspace.slice_stamp(part_name, "media", name)
        if rows_stamp is None or media_stamp is None:
            missing: PartStage = "rows" if rows_stamp is None else "media"
            remedy = redo_remedy(part_name, missing, name)
            raise DataError(f"part {part_name}: the {missing} stamp of slice {name} is missing. {remedy}")
        inputs[name] = stage_fingerprints.features_input(rows_stamp.digest, media_stamp.digest)
    return inputs


def _has_stale_slice(
    workspace: Workspace,
    part_name: str,
    settings: str,
    inputs: Mapping[str, str],
    is_due: Callable[[SliceStamp], bool],
) -> bool:
    stamps = {name: workspace.slice_stamp(part_name, "features", name) for name in inputs}
    return any(
        stamp is None or stamp.fingerprint != fingerprint(settings, inputs[name]) or is_due(stamp)
        for name, stamp in stamps.items()
    )
