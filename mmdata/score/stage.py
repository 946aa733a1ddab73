"""The features stage: every row's scores, hashes, sizes and language, a slice at a time."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import polars as pl
import pyarrow as pa

from mmdata.config import Corpus, Score
from mmdata.config.scorers import is_local_checkpoint
from mmdata.engine import freshness
from mmdata.engine.part_run import SliceResult, run_part_stage
from mmdata.errors import DataError
from mmdata.fingerprint import fingerprint
from mmdata.media.cores import cores
from mmdata.observe import logs
from mmdata.score.earlier import earlier_rows, table_marks
from mmdata.score.features_reader import feature_counts, scorer_mark, unsound_reason
from mmdata.score.features_table import features_table
from mmdata.score.picture_features import measure_pictures
from mmdata.score.pretrained import check_names
from mmdata.score.score_report import features_report
from mmdata.score.scorer import load_scorer
from mmdata.score.sound_features import measure_sounds
from mmdata.stage import Progress, StageReport, silent
from mmdata.storage.tables import read_table
from mmdata.workspace.layout import PartStage, PartStamp, SliceStamp, Workspace

MAX_NAN_SHARE = 0.1  # more than this share of pictures without finite numbers: the model or its precision is at fault
ROW_COLUMNS = ("uid", "kind", "caption", "problem", "start_s", "extra")
SIZE_COLUMNS = ("original_width", "original_height", "width", "height")
STORED_COLUMNS = ("ext", "offset", "length", "further", "audio_s", "faces")
MEDIA_COLUMNS = ("uid", "status", "sha256", *STORED_COLUMNS, *SIZE_COLUMNS)

_log = logs.logger(__name__)

Advance = Callable[[str, int], None]


def score_part(corpus: Corpus, workspace: Workspace, part_name: str, progress: Progress = silent) -> StageReport:
    """Bring the features of a part up to date: `features/*.parquet`, their stamps and the part's.

    Args:
        progress: called with samples; with several workers only at the end, since it cannot cross to them.

    Raises:
        DataError: rows or media are not finished.
        PartFailed: some slices failed; the others are kept.
        UserError: the scorer cannot be had.
    """
    part = workspace.part(part_name)
    rows, media = _finished(workspace, part_name, "rows"), _finished(workspace, part_name, "media")
    inputs = _inputs(workspace, part_name, rows, media)
    settings = freshness.stage_settings(corpus, part, "features")
    _forget_another_checkpoint(workspace, part_name, corpus.score, rows.slices)
    in_this_process = corpus.engine.in_this_process
    if _something_is_due(workspace, part_name, settings, inputs):
        if in_this_process:
            load_scorer(corpus.score)
        else:
            check_names(corpus.score)
    advance: Advance = _nowhere
    if in_this_process:
        advance = functools.partial(_advance, progress, _starts(workspace, part_name, rows), rows.rows)
    result = run_part_stage(
        workspace,
        part_name,
        "features",
        settings=settings,
        inputs=inputs,
        upstream=freshness.features_input(rows.digest, media.digest),
        work=functools.partial(
            score_slice,
            workspace,
            part_name,
            corpus.score,
            min_face_score=_min_face_score(corpus),
            measures=freshness.measure_settings(corpus),
            workers=corpus.engine.workers,
            advance=advance,
        ),
        engine=corpus.engine,
        named=freshness.named_settings(corpus, part, "features"),
        accept=functools.partial(refusal, workspace, part_name),
    )
    progress("features", rows.rows, rows.rows)
    return features_report(corpus, workspace, part_name, result)


def _nowhere(slice_name: str, done: int) -> None:
    """Progress that stays in its process."""


def score_slice(
    workspace: Workspace,
    part_name: str,
    score: Score,
    slice_name: str,
    *,
    min_face_score: float | None = None,
    measures: Sequence[Any] = (),
    workers: int = 1,
    advance: Advance = _nowhere,
) -> SliceResult:
    """Read a slice's rows and media, and make its features table; what an earlier run measured on them is kept.

    Args:
        min_face_score: faces are counted from this confidence on; None: they are not looked for.
        measures: what beside the scorer decides what is measured (`freshness.measure_settings`).
        workers: processes that share this machine's cores.
        advance: called with the slice's name and the samples done in it.

    Raises:
        DataError: the two tables do not hold the same uids, or the tar is missing.
    """
    started = time.perf_counter()
    rows = _frame(workspace, part_name, "rows", slice_name, ROW_COLUMNS)
    media_table = read_table(workspace.table(part_name, "media", slice_name), list(MEDIA_COLUMNS))
    media = pl.DataFrame(media_table)
    if not rows["uid"].equals(media["uid"]):
        raise DataError(
            f"{workspace.table(part_name, 'media', slice_name)}: its uids are not those of the slice's rows. "
            f"Remedy: materialise media for {part_name} again."
        )
    threads = score.threads or max(1, cores() // workers)
    if workers > 1:
        _take_share_of_cores(workers)
    scorer = load_scorer(score)
    marks = table_marks(scorer, media_table.schema.metadata or {}, measures)
    samples = rows.hstack(media.drop("uid"))
    kept = earlier_rows(workspace, part_name, slice_name, samples, marks)
    new = samples.filter(~pl.col("uid").is_in(kept["uid"].to_pylist()))
    tar = workspace.media_tar(part_name, slice_name, media_table.schema.metadata)
    tell = functools.partial(_after, advance, slice_name, len(kept))
    pictures = measure_pictures(new, tar, scorer, threads, tell, min_face_score)
    sounds = measure_sounds(new, tar, score, threads)
    table = (
        pa.concat_tables([features_table(new, pictures, sounds), kept]).sort_by("uid").replace_schema_metadata(marks)
    )
    logs.samples(_log, "samples have a problem", _problems(table))
    counts, problems = feature_counts(table, samples)
    return SliceResult(
        table,
        counts=counts | {"pictures": len(pictures.looks), "kept": len(kept)},
        reasons=problems,
        numbers={"seconds": time.perf_counter() - started},
    )


def _problems(table: pa.Table) -> Iterator[tuple[str, dict[str, str]]]:
    for uid, problem in zip(table["uid"].to_pylist(), table["problem"].to_pylist(), strict=True):
        if problem is not None:
            yield problem, {"uid": uid}


def _min_face_score(corpus: Corpus) -> float | None:
    """Blurred faces were counted when they were blurred."""
    privacy = corpus.privacy
    return privacy.min_face_score if privacy.count_faces and not privacy.blur_faces else None


def _after(advance: Advance, slice_name: str, before: int, done: int) -> None:
    advance(slice_name, before + done)


def refusal(workspace: Workspace, part_name: str, slices: Mapping[str, SliceStamp]) -> str | None:
    """Why a part's features may not enter a release, or None: read from the tables as they were published."""
    with_media = sum(stamp.counts.get("with_media", 0) for stamp in slices.values())
    embedded = sum(stamp.counts.get("embedded", 0) for stamp in slices.values())
    nan = sum(stamp.reasons.get("nan_score", 0) for stamp in slices.values())
    if with_media and not embedded:
        return f"features: none of {with_media} fetched pictures could be scored"
    if nan > MAX_NAN_SHARE * with_media:
        return f"features: the model gave no finite numbers for {nan} of {with_media} pictures"
    for name in slices:
        path = workspace.table(part_name, "features", name)
        features = _frame(workspace, part_name, "features", name, ("uid", "clip_score"))
        if reason := unsound_reason(features, _frame(workspace, part_name, "rows", name, ("uid",))["uid"]):
            return f"features: {path}: {reason}"
    return None


def _forget_another_checkpoint(workspace: Workspace, part_name: str, score: Score, names: Sequence[str]) -> None:
    """A checkpoint on disk may change under its name, which no setting tells; a tag's weights do not."""
    if not is_local_checkpoint(score):
        return
    for name in names:
        path = workspace.table(part_name, "features", name)
        if path.exists():
            scorer = scorer_mark(read_table(path, ["uid"]).schema.metadata)
            if scorer is None or scorer.fingerprint != load_scorer(score).fingerprint:
                workspace.clear_slice_stamp(part_name, "features", name)


def _finished(workspace: Workspace, part_name: str, stage: PartStage) -> PartStamp:
    stamp = workspace.part_stamp(part_name, stage)
    if stamp is None:
        raise DataError(f"part {part_name}: {stage} is not finished. Remedy: materialise {stage} for it first.")
    return stamp


def _inputs(workspace: Workspace, part_name: str, rows: PartStamp, media: PartStamp) -> dict[str, str]:
    if rows.slices != media.slices:
        raise DataError(f"part {part_name}: media is older than rows. Remedy: materialise media for it again.")
    inputs = {}
    for name in rows.slices:
        stamps = [workspace.slice_stamp(part_name, stage, name) for stage in ("rows", "media")]
        if None in stamps:
            raise DataError(
                f"part {part_name}: slice {name} has lost a stamp. Remedy: materialise rows and media again."
            )
        inputs[name] = freshness.features_input(*(stamp.digest for stamp in stamps if stamp is not None))
    return inputs


def _something_is_due(workspace: Workspace, part_name: str, settings: str, inputs: Mapping[str, str]) -> bool:
    stamps = {name: workspace.slice_stamp(part_name, "features", name) for name in inputs}
    return any(s is None or s.fingerprint != fingerprint(settings, inputs[name]) for name, s in stamps.items())


def _starts(workspace: Workspace, part_name: str, rows: PartStamp) -> dict[str, int]:
    """How many of the part's rows stand before each slice."""
    starts, total = {}, 0
    for name in rows.slices:
        starts[name] = total
        stamp = workspace.slice_stamp(part_name, "rows", name)
        total += stamp.rows if stamp else 0
    return starts


def _advance(progress: Progress, starts: Mapping[str, int], total: int, slice_name: str, done: int) -> None:
    progress("features", starts[slice_name] + done, total)


def _take_share_of_cores(workers: int) -> None:
    import torch

    torch.set_num_threads(max(1, cores() // workers))


def _frame(
    workspace: Workspace, part_name: str, stage: PartStage, slice_name: str, columns: tuple[str, ...]
) -> pl.DataFrame:
    return pl.DataFrame(read_table(workspace.table(part_name, stage, slice_name), list(columns)))
