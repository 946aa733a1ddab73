"""The shards stage: writes the kept samples of a release into shards, and reuses shards that exist already."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from os import cpu_count
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from mmdata.config import Corpus
from mmdata.engine.stage_fingerprints import CODE_VERSIONS, stage_settings
from mmdata.errors import DataError
from mmdata.fingerprint import fingerprint
from mmdata.observe import logs
from mmdata.releases.draft import check_draft
from mmdata.releases.manifest import DAMAGED_REMEDY, find_manifest
from mmdata.releases.shard import Shard, shard_problems
from mmdata.samples import GENERATED_TOKENS, INDEX
from mmdata.shards.cohorts import SPLITS, Cohort, assign_cohorts, kept_buckets, place
from mmdata.shards.members import complete, estimate_bytes, load_members, stored_members
from mmdata.shards.packing import pack
from mmdata.shards.stored_media import TarCheck
from mmdata.stage import Progress, StageReport, silent
from mmdata.storage.atomic import atomic_path, publish_json
from mmdata.storage.tables import scan_tables, table_remedy
from mmdata.workspace.json_files import read_derived
from mmdata.workspace.layout import Workspace

_log = logs.logger(__name__)

WRITERS = 4  # shards that are made at the same time, each in memory
ROWS_AT_ONCE = 1_000_000  # samples whose captions and columns are in memory at once: about 0.6 GB


def index_schema(corpus: Corpus) -> pa.Schema:
    """The columns of the index of a release."""
    further = pa.field(GENERATED_TOKENS.name, GENERATED_TOKENS.type)
    return INDEX.append(further) if corpus.recaption.is_on else INDEX


def write_shards(corpus: Corpus, workspace: Workspace, progress: Progress = silent) -> StageReport:
    """Write the shards of the release in the making, and its index.

    A shard with the same recipe as an existing one is not written again, and no media are read for it. So a run
    that was killed continues with the first shard that it had not finished.

    Raises:
        DataError: nothing is selected, or a table or tar of a selected sample is missing.
    """
    draft = check_draft(corpus, workspace)
    release = draft.release_id
    folder = workspace.release_dir(release)
    if (manifest := find_manifest(workspace, release)) is not None:
        rewritten = _restore_missing_shards(corpus, workspace, manifest)
        return _report(workspace, release, [Shard(**shard) for shard in manifest["shards"]], rewritten, draft.parent)
    selection = _kept(folder)
    tars = TarCheck()
    cohorts = assign_cohorts(draft.parts, parent_cohorts(workspace, draft.parent))
    total, done, written = int(selection["repeats"].sum()), 0, 0
    shards: list[Shard] = []
    sized: list[Cohort] = []
    schema = index_schema(corpus)
    with atomic_path(folder / "index.parquet") as path, pq.ParquetWriter(path, schema, compression="zstd") as index:
        for cohort in cohorts:
            members = selection.filter(pl.col("part").is_in(cohort.parts))
            sized.append(_sized(corpus, workspace, cohort, members))
            for shard, frame, is_new in _shards_of(corpus, workspace, sized[-1], members, tars):
                # one row group a shard, so that the samples of a shard are read without the others
                index.write_table(_index(frame, shard, schema.names).to_arrow().cast(schema), row_group_size=len(frame))
                shards.append(shard)
                written += is_new
                done += shard.samples
                progress("shards", done, total)
                log_fields: dict[str, Any] = {
                    "release": release,
                    "shard": shard.name,
                    "samples": shard.samples,
                    "bytes": shard.bytes,
                }
                _log.debug("shard written" if is_new else "shard reused", **log_fields)
            _log.info("cohort packed", release=release, cohort=cohort.name, shards=len(shards), written=written)
    facts: dict[str, Any] = {"captions": True} if corpus.recaption.is_on else {}
    facts |= {"release_id": release, "cohorts": [c.to_json() for c in sized], "shards": [asdict(s) for s in shards]}
    publish_json(folder / "shards.json", facts)
    return _report(workspace, release, shards, written, draft.parent)


def _restore_missing_shards(corpus: Corpus, workspace: Workspace, manifest: Mapping[str, Any]) -> int:
    """Write the shards of a published release again that are missing or cut; returns how many.

    Raises:
        DataError: the samples of such a shard are not what they were, so that the same shard cannot be written.
    """
    lost = {shard["cohort"] for shard in manifest["shards"] if any(shard_problems(workspace, [shard]))}
    if not lost:
        return 0
    selection, tars, written = _kept(workspace.release_dir(manifest["release_id"])), TarCheck(), 0
    for cohort in (Cohort.from_json(data) for data in manifest["cohorts"] if data["name"] in lost):
        members = selection.filter(pl.col("part").is_in(cohort.parts))
        written += sum(is_new for _, _, is_new in _shards_of(corpus, workspace, cohort, members, tars))
    if problem := next(shard_problems(workspace, manifest["shards"]), None):
        raise DataError(f"{problem}, and cannot be written again as it was. {DAMAGED_REMEDY}")
    return written


def _sized(corpus: Corpus, workspace: Workspace, cohort: Cohort, members: pl.DataFrame) -> Cohort:
    """The cohort, with the number of buckets for each of its splits."""
    if members.is_empty():
        return cohort
    sizes = estimate_bytes(workspace, members, corpus.recaption)
    buckets = {
        split: kept_buckets(cohort.buckets.get(split), sizes[split], corpus.shards.shard_mb)
        for split in SPLITS
        if split in sizes
    }
    return Cohort(cohort.name, cohort.parts, {**cohort.buckets, **buckets})


def _shards_of(
    corpus: Corpus, workspace: Workspace, cohort: Cohort, members: pl.DataFrame, tars: TarCheck
) -> Iterator[tuple[Shard, pl.DataFrame, bool]]:
    """The shards of the cohort in order, each with its samples and whether it is new."""
    settings = _settings(corpus, workspace, cohort)
    for split in SPLITS:
        chosen = members.filter(pl.col("split") == split)
        copies = chosen.with_columns(copy=pl.int_ranges(0, pl.col("repeats"), dtype=pl.Int32)).explode("copy")
        if copies.is_empty():
            continue
        placed = place(copies, cohort.buckets[split], corpus.seed, f"{cohort.name} {split}")
        for buckets in _batches(placed.partition_by("bucket", maintain_order=True), ROWS_AT_ONCE):
            loaded = load_members(workspace, pl.concat(buckets), corpus.recaption)
            work = partial(_write_or_reuse_shard, corpus, workspace, settings, split, cohort.name, loaded, tars)
            with ThreadPoolExecutor(min(WRITERS, cpu_count() or 1)) as pool:
                yield from pool.map(work, buckets)


def _batches(buckets: Sequence[pl.DataFrame], rows: int) -> Iterator[list[pl.DataFrame]]:
    """Consecutive buckets, up to `rows` rows together; a larger bucket comes alone."""
    batch: list[pl.DataFrame] = []
    for bucket in buckets:
        if batch and sum(map(len, batch)) + len(bucket) > rows:
            yield batch
            batch = []
        batch.append(bucket)
    if batch:
        yield batch


def parent_cohorts(workspace: Workspace, parent: str | None) -> list[Cohort]:
    """The cohorts of the parent release; empty if there is no parent."""
    manifest = find_manifest(workspace, parent)
    return [Cohort.from_json(data) for data in manifest["cohorts"]] if manifest else []


def bucket_recipe(settings: str, frame: pl.DataFrame) -> str:
    """Fingerprint of the bytes of a bucket, from keys, members, captions and facts in order. Reads no media."""
    digest = hashlib.sha256(settings.encode())
    members = stored_members(frame).group_by("sample").agg(stored=pl.format("{}:{}", "ext", "length"))
    rows = frame.select("key", "txt", "json").with_row_index("sample").join(members, "sample", "left")
    for key, stored, txt, facts in rows.sort("sample").select("key", "stored", "txt", "json").iter_rows():
        # the facts hold the sha256 of the fetched file; with the storage settings it determines the stored bytes
        for piece in (key.encode(), " ".join(stored or []).encode(), txt, facts):
            digest.update(len(piece).to_bytes(8, "little"))
            digest.update(piece)
    return digest.hexdigest()[:32]


def _write_or_reuse_shard(
    corpus: Corpus,
    workspace: Workspace,
    settings: str,
    split: str,
    cohort: str,
    members: pl.DataFrame,
    tars: TarCheck,
    placed: pl.DataFrame,
) -> tuple[Shard, pl.DataFrame, bool]:
    """The shard of a bucket, its samples, and whether the shard is new."""
    frame = complete(placed, members, corpus.recaption)
    recipe = bucket_recipe(settings, frame)
    placing = ("shard", "offset", "length")
    index = frame.select(*(name for name in index_schema(corpus).names if name not in placing), "size")
    note = workspace.shards_dir / "recipes" / f"{recipe}.json"
    shard = read_derived(note, lambda data: Shard(**data))
    if shard is not None and not any(shard_problems(workspace, [asdict(shard)])):
        return shard, index, False
    tars.require_sound(frame)
    archive = pack(frame)  # in memory until its hash, which is part of its name, is known
    sha256 = hashlib.sha256(archive).hexdigest()
    bucket = int(frame["bucket"][0])
    name = f"{split}-{cohort}-{bucket:05d}-{sha256[:12]}.tar"
    with atomic_path(workspace.shards_dir / name) as draft:
        draft.write_bytes(archive)
    shard = Shard(name, split, cohort, bucket, sha256, len(archive), len(frame), recipe)
    publish_json(note, asdict(shard))
    return shard, index, True


def _index(frame: pl.DataFrame, shard: Shard, names: list[str]) -> pl.DataFrame:
    places = {
        "shard": pl.lit(shard.name),
        "offset": pl.col("size").cum_sum() - pl.col("size"),
        "length": pl.col("size"),
    }
    return frame.with_columns(**places).select(names)


def _kept(folder: UPath) -> pl.DataFrame:
    columns = ["uid", "part", "slice", "signature", "clip_score", "cluster", "concept", "repeats", "split"]
    path = folder / "selection.parquet"
    if not path.exists():
        raise DataError(f"{path}: the selection is not there. {table_remedy(path)}")
    return scan_tables([path], [*columns, "keep"]).filter("keep").drop("keep").collect()


def _settings(corpus: Corpus, workspace: Workspace, cohort: Cohort) -> str:
    """Fingerprint of the settings that decide the bytes of a shard."""
    parts = workspace.catalog().parts
    media = sorted({stage_settings(corpus, parts[name], "media") for name in cohort.parts if name in parts})
    return fingerprint("shards", CODE_VERSIONS["shards"], media)


def _rewritten(workspace: Workspace, release: str, shards: list[Shard], parent: str | None) -> dict[str, int]:
    """Numbers of shards, bytes and samples of a release that its parent does not have.

    Neither a further copy of a sample is new, nor a sample that stands for a duplicate of it in the parent.
    """
    manifest = find_manifest(workspace, parent)
    old_names = {shard["name"] for shard in manifest["shards"]} if manifest else set()
    new = [shard for shard in shards if shard.name not in old_names]
    rewritten = scan_tables([workspace.release_dir(release) / "index.parquet"], ["uid", "shard"])
    rewritten = rewritten.filter(pl.col("shard").is_in([shard.name for shard in new])).select("uid").unique()
    if parent and manifest:
        before = scan_tables([workspace.release_dir(parent) / "index.parquet"], ["uid"])
        duplicates = scan_tables([workspace.release_dir(release) / "selection.parquet"], ["uid", "duplicate_of"])
        stand_ins = duplicates.drop_nulls().join(before, on="uid", how="semi").select(uid="duplicate_of")
        rewritten = rewritten.join(before, on="uid", how="anti").join(stand_ins, on="uid", how="anti")
    samples = int(rewritten.select(pl.len()).collect().item())
    return {"shards_new": len(new), "bytes_new": sum(shard.bytes for shard in new), "samples_new": samples}


def _report(workspace: Workspace, release: str, shards: list[Shard], written: int, parent: str | None) -> StageReport:
    by_split: Mapping[str, list[Shard]] = {split: [s for s in shards if s.split == split] for split in SPLITS}
    counts = {
        "shards": len(shards),
        "shards_written": written,
        "shards_reused": len(shards) - written,
        "samples": sum(s.samples for s in shards),
        **{f"samples_{split}": sum(s.samples for s in group) for split, group in by_split.items()},
        "bytes": sum(s.bytes for s in shards),
        **_rewritten(workspace, release, shards, parent),
    }
    share = counts["bytes_new"] / counts["bytes"] if shards else 0.0
    table: list[dict[str, Any]] = [
        {"shard": s.name, "split": s.split, "samples": s.samples, "megabytes": round(s.bytes / 1e6, 2)} for s in shards
    ]
    return StageReport(
        "shards",
        counts=counts,
        numbers={"reused_share": 1 - written / len(shards) if shards else 1.0, "bytes_new_share": share},
        tables={"shards": table[:50]},
        slices_done=written,
        slices_reused=len(shards) - written,
        version=fingerprint(sorted(shard.sha256 for shard in shards)),
        paths={"shards": str(workspace.shards_dir), "index": str(workspace.release_dir(release) / "index.parquet")},
    )
