"""Applies the opt-out to the tables, stamps and media of a part, also after an earlier run was killed.

Features are rewritten first, then media, then rows, and the stamps in the same order. Which samples must go is decided
from the rows and the opt-out, so after a kill at any moment the next run does the rest. Until then the rows of the
part count as stale, and no release is made of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
import pyarrow as pa
from upath import UPath

from mmdata.config import Corpus
from mmdata.documents import DOCUMENT, DOCUMENT_MEDIA
from mmdata.download.media_counts import media_counts
from mmdata.engine.part_run import table_digest
from mmdata.engine.stage_fingerprints import features_input, stage_settings
from mmdata.errors import UserError
from mmdata.fingerprint import fingerprint
from mmdata.optout.hashes import COVERING, OptOut
from mmdata.optout.redact import redacted_features, redacted_rows, rows_counts
from mmdata.optout.state import OPT_OUT
from mmdata.samples import FEATURES, ROWS
from mmdata.score.features_reader import feature_counts
from mmdata.stage import add_counts
from mmdata.storage.tables import read_table, write_table
from mmdata.takedown.repacking import repacked_media
from mmdata.workspace.layout import PART_STAGES, PartStage, PartStamp, SliceStamp, Workspace, part_digest
from mmdata.workspace.lease import leased
from mmdata.workspace.media_tar import remove_unaddressed

SCHEMAS: Mapping[PartStage, pa.Schema] = {"rows": ROWS, "media": DOCUMENT_MEDIA, "features": FEATURES}


@dataclass(frozen=True, slots=True)
class LeftOut:
    """The samples to leave out of a part."""

    uids: frozenset[str]  # samples that are left out as a whole
    by_content: frozenset[str]  # samples whose file is refused, while their rows stay

    def masks(self, table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        """The rows of a table that belong to `uids` and to `by_content`, bool (n,) each."""
        uids = pl.Series(table["uid"])
        return uids.is_in(list(self.uids)).to_numpy(), uids.is_in(list(self.by_content)).to_numpy()


def part_names(workspace: Workspace) -> list[str]:
    """Every part that has files in the workspace, removed parts included."""
    folder = workspace.root / "parts"
    return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.exists() else []


def slice_names(workspace: Workspace, part: str, stage: PartStage) -> list[str]:
    """The slices of a stage that have a table, stamped or not."""
    folder = workspace.part_dir(part) / stage
    return sorted(path.stem for path in folder.glob("*.parquet")) if folder.exists() else []


def left_out(workspace: Workspace, part: str, opt_out: OptOut) -> LeftOut:
    """The samples of a part that the opt-out covers, with those that were left out before."""
    uids: set[str] = set()
    by_content: set[str] = set()
    for name in slice_names(workspace, part, "rows"):
        rows = read_table(workspace.table(part, "rows", name), [*COVERING, "problem"])
        uids |= _uids(rows, opt_out.covers_rows(rows) | _equals(rows["problem"], OPT_OUT))
    for name in slice_names(workspace, part, "media"):
        media = read_table(workspace.table(part, "media", name), ["uid", "sha256"], ["pictures"])
        uids |= _uids(media, opt_out.covers_uids(media["uid"]))
        by_content |= _uids(media, opt_out.covers_content(media["sha256"])) | set(refused_documents(media, opt_out))
    return LeftOut(frozenset(uids), frozenset(by_content - uids))


def refused_documents(media: pa.Table, opt_out: OptOut) -> dict[str, str]:
    """uid -> SHA-256 of the first picture that is opted out, for the documents of a media table that have one."""
    refused: dict[str, str] = {}
    if "pictures" in media.column_names:
        for uid, pictures in zip(media["uid"].to_pylist(), media["pictures"].to_pylist(), strict=True):
            files = (picture["sha256"] for picture in pictures or ())
            if (sha256 := next(filter(opt_out.covers_file, files), None)) is not None:
                refused[uid] = sha256
    return refused


def leave_out(corpus: Corpus, workspace: Workspace, part: str, opt_out: OptOut) -> None:
    """Remove the content of opted-out samples from the tables of a part; the caller then writes the rows stamp.

    Nothing is fetched or scored: stamps that were fresh stay fresh. The caller must hold the lease of the part.
    """
    left = left_out(workspace, part, opt_out)
    if not left.uids and not left.by_content:
        return
    settings = _settings(corpus, workspace, part)
    for name in sorted({name for stage in PART_STAGES for name in slice_names(workspace, part, stage)}):
        _leave_out_of_slice(workspace, part, name, left, opt_out, settings)
    _restamp_part(workspace, part, settings)


def remove_media(workspace: Workspace, part: str) -> None:
    """Remove media bytes that no table refers to. Not to be called while a release is made of the part."""
    remove_unaddressed(workspace, part, slice_names(workspace, part, "media"))


def remove_media_unless_busy(workspace: Workspace, part: str) -> None:
    """`remove_media`, but do nothing while a release is made; `mmdata gc` or the next fetch does it then."""
    with suppress(UserError), leased(workspace, "release", f"opt-out of {part}"):
        remove_media(workspace, part)


def pardon(workspace: Workspace, part: str, opt_out: OptOut) -> None:
    """Clear the stamps of media that were refused for an entry that has been removed, so they are fetched again."""
    for name in slice_names(workspace, part, "media"):
        media = read_table(workspace.table(part, "media", name), ["sha256", "error"])
        refused = _equals(media["error"], OPT_OUT) & pl.Series(media["sha256"]).is_not_null().to_numpy()
        if (refused & ~opt_out.covers_content(media["sha256"])).any():
            workspace.clear_part_stamp(part, "media")
            workspace.clear_slice_stamp(part, "media", name)


def finish_rows(workspace: Workspace, part: str, opt_out: OptOut) -> None:
    """Record in the rows stamp of a part that its tables follow this opt-out. To be called last."""
    stamp = workspace.part_stamp(part, "rows")
    if stamp is not None:
        stamps = _slice_stamps(workspace, part, "rows", stamp.slices)
        new_stamp = replace(_summed(stamp, stamps) if stamps is not None else stamp, opt_out=opt_out.digest)
        if new_stamp != stamp:
            workspace.write_part_stamp(part, "rows", new_stamp)


def _leave_out_of_slice(
    workspace: Workspace, part: str, name: str, left: LeftOut, opt_out: OptOut, settings: Mapping[PartStage, str]
) -> None:
    tables = {stage: _table(workspace, part, stage, name) for stage in PART_STAGES}
    masks = {stage: left.masks(table) for stage, table in tables.items() if table is not None}
    if not any(mask.any() for pair in masks.values() for mask in pair):
        return
    stamps = {stage: workspace.slice_stamp(part, stage, name) for stage in PART_STAGES}
    rows, media, features = (tables[stage] for stage in PART_STAGES)
    new_rows = None if rows is None else redacted_rows(rows, masks["rows"][0])
    new_media = None
    if media is not None:
        named = _with_refused_pictures(media, opt_out)
        new_media = repacked_media(workspace, part, name, named, *masks["media"])
    digests = {
        "rows": (_digest(stamps["rows"]), "" if new_rows is None else table_digest(new_rows)),
        "media": (_digest(stamps["media"]), "" if new_media is None else table_digest(new_media)),
    }
    inputs = {
        "features": tuple(features_input(digests["rows"][n], digests["media"][n]) for n in (0, 1)),
        "media": digests["rows"],
        "rows": ("", ""),
    }
    if features is not None:
        new = redacted_features(features, *masks["features"])
        stamp = stamps["features"]
        if stamp is not None and new_rows is not None and new_media is not None:
            samples = pl.DataFrame(new_rows.select(["uid", "kind"])).hstack(pl.DataFrame(new_media.select(["status"])))
            counts, reasons = feature_counts(new, samples)
            stamp = replace(stamp, counts={**stamp.counts, **counts}, reasons=reasons)
        _publish(workspace, part, "features", name, features, new, _carried(stamp, settings, "features", inputs))
    if media is not None and new_media is not None:
        stamp = stamps["media"]
        if stamp is not None:
            counts, media_reasons, due = media_counts(new_media, _urls(new_rows))
            kept_counts = {key: stamp.counts[key] for key in stamp.counts.keys() & {"unspoken"}}
            stamp = replace(stamp, counts=counts | kept_counts, reasons=dict(media_reasons), next_retry_at=due)
        _publish(workspace, part, "media", name, media, new_media, _carried(stamp, settings, "media", inputs))
    if rows is not None and new_rows is not None:
        stamp = stamps["rows"]
        if stamp is not None:
            counts, reasons = rows_counts(stamp.counts, new_rows)
            stamp = replace(stamp, counts=counts, reasons=reasons)
        _publish(workspace, part, "rows", name, rows, new_rows, stamp)


def _publish(
    workspace: Workspace, part: str, stage: PartStage, name: str, old: pa.Table, new: pa.Table, stamp: SliceStamp | None
) -> None:
    """Publish a table and its stamp, each only if it has changed."""
    if not new.equals(old, check_metadata=True):
        write_table(workspace.table(part, stage, name), new)
    if stamp is None:
        return
    stamp = replace(stamp, digest=table_digest(new))
    if stamp != workspace.slice_stamp(part, stage, name):
        workspace.write_slice_stamp(part, stage, name, stamp)


def _carried(
    stamp: SliceStamp | None, settings: Mapping[PartStage, str], stage: PartStage, inputs: Mapping[str, tuple[str, ...]]
) -> SliceStamp | None:
    """The stamp for new inputs: it is fresh if it was fresh for the old inputs, and stays stale otherwise."""
    if stamp is None or stage not in settings:
        return stamp
    old, new = (fingerprint(settings[stage], digest) for digest in inputs[stage])
    return replace(stamp, fingerprint=new) if stamp.fingerprint == old else stamp


def _restamp_part(workspace: Workspace, part: str, settings: Mapping[PartStage, str]) -> None:
    """Write the part stamps of features and media for their slices as they are now; fresh stamps stay fresh."""
    stamps = {stage: workspace.part_stamp(part, stage) for stage in PART_STAGES}
    new: dict[PartStage, PartStamp] = {}
    for stage, stamp in stamps.items():
        slices = None if stamp is None else _slice_stamps(workspace, part, stage, stamp.slices)
        if stamp is not None and slices is not None:
            new[stage] = _summed(stamp, slices)
    for stage in ("features", "media"):
        if stage not in new:
            continue
        old_inputs, new_inputs = (_part_input(stage, group) for group in (stamps, new))
        if stage in settings and new[stage].fingerprint == fingerprint(settings[stage], old_inputs):
            new[stage] = replace(new[stage], fingerprint=fingerprint(settings[stage], new_inputs))
        if new[stage] != stamps[stage]:
            workspace.write_part_stamp(part, stage, new[stage])


def _part_input(stage: PartStage, stamps: Mapping[PartStage, PartStamp | None]) -> str:
    rows, media = stamps.get("rows"), stamps.get("media")
    rows_digest = rows.digest if rows else ""
    return rows_digest if stage == "media" else features_input(rows_digest, media.digest if media else "")


def _slice_stamps(
    workspace: Workspace, part: str, stage: PartStage, names: Iterable[str]
) -> dict[str, SliceStamp] | None:
    """The stamps of the named slices; None if one of them has no stamp."""
    stamps = {name: workspace.slice_stamp(part, stage, name) for name in names}
    present = {name: stamp for name, stamp in stamps.items() if stamp is not None}
    return present if len(present) == len(stamps) else None


def _summed(stamp: PartStamp, slices: Mapping[str, SliceStamp]) -> PartStamp:
    """The part stamp with digest and counts of its slices as they are now; fingerprint and acceptance stay."""
    retries = [slice_stamp.next_retry_at for slice_stamp in slices.values() if slice_stamp.next_retry_at]
    return replace(
        stamp,
        digest=part_digest({name: slice_stamp.digest for name, slice_stamp in slices.items()}),
        rows=sum(slice_stamp.rows for slice_stamp in slices.values()),
        counts=add_counts(slice_stamp.counts for slice_stamp in slices.values()),
        reasons=add_counts(slice_stamp.reasons for slice_stamp in slices.values()),
        next_retry_at=min(retries, default=None),
    )


def _settings(corpus: Corpus, workspace: Workspace, part: str) -> dict[PartStage, str]:
    """Stage -> fingerprint of its settings; empty if corpus.yaml no longer has the source of the part."""
    entry = workspace.catalog().parts.get(part)
    if entry is None or entry.source not in {source.name for source in corpus.sources}:
        return {}
    return {stage: stage_settings(corpus, entry, stage) for stage in PART_STAGES}


def _table(workspace: Workspace, part: str, stage: PartStage, name: str) -> pa.Table | None:
    """A table with its original types: Parquet renames the items of lists, which would change the digest."""
    path: UPath = workspace.table(part, stage, name)
    if not path.exists():
        return None
    table = read_table(path)
    schema = SCHEMAS[stage]
    fields = [schema.field(field.name) if field.name in schema.names else field for field in table.schema]
    return table.cast(pa.schema(fields, metadata=table.schema.metadata))


def _digest(stamp: SliceStamp | None) -> str:
    return stamp.digest if stamp is not None else ""


def _urls(rows: pa.Table | None) -> dict[str, str | None]:
    """uid -> URL of the file of the row; a document has several files, and the URL of its row is that of its page."""
    columns = [] if rows is None else [rows[name].to_pylist() for name in ("uid", "url", "kind")]
    return {uid: None if kind == DOCUMENT else url for uid, url, kind in zip(*columns, strict=True)}


def _with_refused_pictures(media: pa.Table, opt_out: OptOut) -> pa.Table:
    """The table with the SHA-256 of the opted-out picture for each document that has one, as a fetch would note it."""
    refused = refused_documents(media, opt_out)
    if not refused:
        return media
    pairs = zip(media["uid"].to_pylist(), media["sha256"].to_pylist(), strict=True)
    column = pa.array([refused.get(uid, sha256) for uid, sha256 in pairs], pa.string())
    return media.set_column(media.column_names.index("sha256"), media.schema.field("sha256"), column)


def _uids(table: pa.Table, chosen: np.ndarray) -> set[str]:
    return set(table["uid"].filter(pa.array(chosen)).to_pylist())


def _equals(column: pa.ChunkedArray, value: str) -> np.ndarray:
    return (pl.Series(column) == value).fill_null(value=False).to_numpy()
