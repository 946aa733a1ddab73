"""Audits of a workspace: each reads the tables, checks one promise, and returns a finding."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import polars as pl

from mmdata.config import Corpus
from mmdata.documents import PICTURED
from mmdata.engine.freshness import configured_parts, fetched_files, plan_part
from mmdata.releases.draft import read_draft
from mmdata.releases.drift import read_changes
from mmdata.releases.holds import read_hold
from mmdata.score.features_reader import is_cosine
from mmdata.stage import add_counts
from mmdata.storage.tables import scan_tables
from mmdata.workspace.attempts import last_attempts
from mmdata.workspace.layout import PART_STAGES, Part, PartStage, Workspace

_NO_ROWS = pl.LazyFrame(schema=dict.fromkeys(("slice", "uid", "kind", "url"), pl.String))
MAX_EXAMPLES = 20


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of an audit.

    Args:
        passed: whether the promise holds.
        summary: one sentence for people.
        numbers: counts and shares.
        examples: at most 20 rows that are wrong, as flat dicts with the same keys.
    """

    passed: bool
    summary: str
    numbers: Mapping[str, float] = field(default_factory=dict)
    examples: Sequence[Mapping[str, Any]] = ()


def download_share(corpus: Corpus, workspace: Workspace, part: str) -> Finding:
    """Whether enough of a part was fetched for it to enter a release."""
    stamp = workspace.part_stamp(part, "media")
    if stamp is None:
        return Finding(False, f"part {part}: media is not finished")
    success, files = fetched_files(stamp.counts)
    share = success / files if files else 1.0
    numbers = {"rows": stamp.rows, "success_share": share, "asked_for": corpus.download.min_success_share}
    return Finding(stamp.accepted, stamp.reason or f"{success:,} of {files:,} files gave media", numbers)


def scores_sound(workspace: Workspace, part: str) -> Finding:
    """Whether each slice has exactly one features row for every uid of its rows, and everything stored was measured.

    Pictures and clips need a finite score, and sound its loudness; or the row names a problem.
    """
    columns = ["uid", "clip_score", "audio_rms_db", "problem"]
    features = _stage_frame(workspace, part, "features", columns).with_columns(scored=pl.lit(True))
    media = _stage_frame(workspace, part, "media", ["uid", "status", "audio_s"])
    rows_read = _stage_frame(workspace, part, "rows", ["uid", "kind"])
    media = media.join(rows_read, on=["slice", "uid"], how="left")
    pictured = pl.col("kind").is_in(PICTURED) & pl.col("clip_score").is_null()
    unheard = pl.col("audio_s").is_not_null() & pl.col("audio_rms_db").is_null()
    joined = media.join(features, on=["slice", "uid"], how="full", coalesce=True).with_columns(
        wrong=pl.when(pl.col("status").is_null())
        .then(pl.lit("not among the part's rows"))
        .when(pl.col("scored").is_null())
        .then(pl.lit("no features row"))
        .when((pl.col("status") == "success") & pl.col("problem").is_null() & (pictured | unheard))
        .then(pl.lit("fetched, but neither measured nor with a problem"))
        .when(~is_cosine(pl.col("clip_score")))
        .then(pl.lit("the score is not a cosine"))
    )
    counted = joined.select(
        rows=pl.len(), scored=pl.col("clip_score").is_not_null().sum(), wrong=pl.col("wrong").is_not_null().sum()
    ).collect()
    rows, scored, wrong = (int(counted[name].item()) for name in ("rows", "scored", "wrong"))
    doubled = rows - int(joined.select(pl.struct("slice", "uid").n_unique()).collect().item()) if rows else 0
    examples = (
        joined.filter(pl.col("wrong").is_not_null())
        .select("slice", "uid", "wrong")
        .sort("uid")
        .head(MAX_EXAMPLES)
        .collect()
    )
    passed = wrong == 0 and doubled == 0
    summary = f"{scored:,} of {rows:,} rows scored" if passed else f"{wrong:,} rows wrong, {doubled:,} uids doubled"
    return Finding(passed, summary, {"rows": rows, "scored": scored, "wrong": wrong}, examples.to_dicts())


def refuse_part(workspace: Workspace, part: str, stage: PartStage, reason: str) -> None:
    """Keep a part out of releases until its stage runs again, by marking its stamp as not accepted."""
    stamp = workspace.part_stamp(part, stage)
    if stamp is not None and stamp.accepted:
        workspace.write_part_stamp(part, stage, replace(stamp, accepted=False, reason=reason))


def no_uid_lost(workspace: Workspace) -> Finding:
    """Whether the selection accounts for each uid of the draft's parts, and for each source row behind it."""
    draft = read_draft(workspace)
    frames = [_stage_frame(workspace, part, "rows", ["uid", "copies"]) for part in draft.parts]
    copies = pl.col("copies").cast(pl.Int64).sum()
    rows = pl.concat(frames).group_by("uid").agg(copies)
    selection = _selection_frame(workspace, ["uid", "copies"]).group_by("uid").agg(copies.alias("selected"))
    both = rows.join(selection, on="uid", how="full", coalesce=True)
    wrong = pl.col("copies").ne_missing(pl.col("selected"))
    counted = both.select(
        uids=pl.len(),
        rows_read=pl.col("copies").sum(),
        lost=pl.col("selected").is_null().sum(),
        invented=pl.col("copies").is_null().sum(),
        miscounted=(wrong & pl.col("selected").is_not_null() & pl.col("copies").is_not_null()).sum(),
    ).collect(engine="streaming")
    numbers = {name: int(counted[name].item()) for name in counted.columns}
    catalogued = workspace.catalog().parts
    ranges = [catalogued[part] for part in draft.parts if part in catalogued]
    numbers["rows_catalogued"] = sum(part.stop - part.start for part in ranges)
    # a row of an index of videos gives many samples, so rows are compared with rows, and samples with samples
    read = add_counts(_read_counts(workspace, part) for part in ranges)
    if read.get("rows", 0) != numbers["rows_catalogued"] or read.get("samples", 0) != numbers["rows_read"]:
        problem = (
            f"{numbers['rows_catalogued']:,} rows in the source files, but {read.get('rows', 0):,} were read; "
            f"{read.get('samples', 0):,} samples in them, but {numbers['rows_read']:,} are in the tables"
        )
        return Finding(False, problem, numbers)
    bad = both.filter(wrong).sort("uid").head(MAX_EXAMPLES).collect().to_dicts()
    if not bad:
        return Finding(True, f"{numbers['rows_read']:,} samples in, all accounted for", numbers)
    problem = f"{numbers['lost']:,} uids lost, {numbers['invented']:,} invented, {numbers['miscounted']:,} miscounted"
    return Finding(False, problem, numbers, bad)


def _read_counts(workspace: Workspace, part: Part) -> dict[str, int]:
    stamp, rows = workspace.part_stamp(part.name, "rows"), part.stop - part.start
    counts = stamp.counts if stamp is not None else {}
    return {name: counts.get(name, rows) for name in ("rows", "samples")}


def no_split_leakage(workspace: Workspace) -> Finding:
    """Whether no cluster of near-duplicate pictures, and no video or recording, is in more than one split."""
    kept = _selection_frame(workspace, ["uid", "part", "cluster", "keep", "split"]).filter(pl.col("keep"))
    parts = sorted(kept.select("part").unique().collect()["part"].to_list())
    rows = pl.concat([_NO_ROWS, *(_stage_frame(workspace, part, "rows", ["uid", "kind", "url"]) for part in parts)])
    kept = kept.join(rows.drop("slice").unique("uid"), on="uid", how="left")
    of_file = pl.col("kind").is_in(["video", "audio"])
    groups = [
        kept.filter(~of_file & pl.col("cluster").is_not_null()).select("split", group=pl.format("{}", "cluster")),
        kept.filter(of_file & pl.col("url").is_not_null()).select("split", group="url"),
    ]
    per_group = pl.concat(groups).group_by("group").agg(pl.col("split").n_unique().alias("splits"), samples=pl.len())
    leaks = per_group.filter(pl.col("splits") > 1).sort("group").collect()
    without_split = int(kept.select(pl.col("split").is_null().sum()).collect().item())
    sizes = kept.group_by("split").agg(pl.len()).collect()
    numbers = {str(split): int(size) for split, size in sizes.iter_rows()} | {"leaking_groups": leaks.height}
    if leaks.height or without_split:
        problem = (
            f"{leaks.height:,} clusters or files in more than one split; {without_split:,} kept samples without a split"
        )
        return Finding(False, problem, numbers, leaks.head(MAX_EXAMPLES).to_dicts())
    return Finding(True, "no cluster and no file is in two splits", numbers)


def no_sudden_change(workspace: Workspace) -> Finding:
    """Whether the draft release resembles its parent and is not held; see `mmdata.releases.drift` and `holds`."""
    release = read_draft(workspace).release_id
    changes, hold = read_changes(workspace, release), read_hold(workspace)
    if hold is not None and hold["release"] == release:
        return Finding(False, f"held: {hold['why']}")
    if changes is None:
        return Finding(True, "there is no earlier release to compare it with")
    sudden = changes["sudden"]
    numbers = {name: changes["counts"][name] for name in ("added", "dropped", "stayed")}
    if sudden:
        return Finding(False, "; ".join(sudden), numbers, [{"change": line} for line in sudden[:MAX_EXAMPLES]])
    return Finding(True, f"like its parent {changes['before']}", numbers)


def no_failed_parts(corpus: Corpus, workspace: Workspace, running: Collection[str] = ()) -> Finding:
    """Whether nothing needs a person: no part has failed, died or been refused, and every source file can be read.

    Args:
        running: parts that somebody works on now; their unfinished attempts are not failures.
    """
    troubles: list[dict[str, Any]] = []
    for path, entry in workspace.catalog().files.items():
        if entry.get("status") == "unreadable":
            troubles.append(_trouble(path, "source_catalog", entry.get("error") or "unreadable"))
    for part in configured_parts(corpus, workspace):
        if part.name in running:
            continue
        stale = plan_part(corpus, workspace, part).stale
        attempts = last_attempts(workspace, part.name)
        for stage in PART_STAGES:
            attempt, stamp = attempts.get(stage), workspace.part_stamp(part.name, stage)
            if stage in stale and attempt is not None:
                died = f"started {attempt.started_at}, never finished"
                troubles.append(_trouble(part.name, stage, attempt.error or died, attempt.tries))
            elif stage not in stale and stamp is not None and not stamp.accepted:
                troubles.append(_trouble(part.name, stage, f"not accepted: {stamp.reason}"))
    summary = f"{len(troubles)} need a person" if troubles else "nothing failed"
    return Finding(not troubles, summary, {"troubles": len(troubles)}, troubles)


def _trouble(what: str, stage: str, why: str, tries: int = 1) -> dict[str, Any]:
    return {"what": what, "stage": stage, "why": why, "tries": tries}


def _stage_frame(workspace: Workspace, part: str, stage: PartStage, columns: list[str]) -> pl.LazyFrame:
    stamp = workspace.part_stamp(part, stage)
    numbers = {"clip_score": pl.Float32, "audio_rms_db": pl.Float32, "audio_s": pl.Float64, "copies": pl.Int32}
    schema: dict[str, Any] = {column: numbers.get(column, pl.String) for column in ("slice", *columns)}
    frames = [
        scan_tables([workspace.table(part, stage, name)], columns).select(pl.lit(name).alias("slice"), *columns)
        for name in (stamp.slices if stamp is not None else ())
    ]
    return pl.concat([pl.LazyFrame(schema=schema), *frames])


def _selection_frame(workspace: Workspace, columns: list[str]) -> pl.LazyFrame:
    path = workspace.release_dir(read_draft(workspace).release_id) / "selection.parquet"
    return scan_tables([path], columns)
