"""Bring a part to what the opt-out asks for: its tables, stamps and media, at any point of an earlier try.

Features are rewritten first, then media, then rows, and the stamps in the same order. What is to go is told from the
rows and the opt-out, so a run that is killed anywhere is finished by the next; until then the part's rows are stale,
and no release is made of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import IO

import numpy as np
import polars as pl
import pyarrow as pa
from upath import UPath

from mmdata.config import Corpus
from mmdata.download.media_counts import media_counts
from mmdata.engine.freshness import features_input, stage_settings
from mmdata.engine.part_run import table_digest
from mmdata.errors import UserError
from mmdata.fingerprint import fingerprint
from mmdata.optout.hashes import OptOut
from mmdata.optout.redact import redacted_features, redacted_media, redacted_rows, rows_counts
from mmdata.optout.state import REASON
from mmdata.samples import FEATURES, MEDIA, ROWS
from mmdata.score.features_reader import feature_counts
from mmdata.stage import add_counts
from mmdata.storage.tables import read_table, write_table
from mmdata.workspace.layout import PART_STAGES, PartStage, PartStamp, SliceStamp, Workspace, part_digest
from mmdata.workspace.lease import leased
from mmdata.workspace.media_tar import SETTINGS_KEY, remove_unaddressed, signed, write_tar

SCHEMAS: Mapping[PartStage, pa.Schema] = {"rows": ROWS, "media": MEDIA, "features": FEATURES}


@dataclass(frozen=True, slots=True)
class Left:
    """What is to be left out of a part.

    Args:
        uids: whole samples.
        by_content: samples whose file is refused, and whose rows stay.
    """

    uids: frozenset[str]
    by_content: frozenset[str]

    def chosen(self, table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        """Which rows of a table these are: two of bool (n,)."""
        uids = table["uid"].to_pylist()
        return tuple(np.array([uid in group for uid in uids], bool) for group in (self.uids, self.by_content))  # type: ignore[return-value]


def part_names(workspace: Workspace) -> list[str]:
    """Every part that has left anything, removed ones included."""
    folder = workspace.root / "parts"
    return sorted(one.name for one in folder.iterdir() if one.is_dir()) if folder.exists() else []


def slice_names(workspace: Workspace, part: str, stage: PartStage) -> list[str]:
    """The slices that a stage has left a table of, stamped or not."""
    folder = workspace.part_dir(part) / stage
    return sorted(path.stem for path in folder.glob("*.parquet")) if folder.exists() else []


def left_out(workspace: Workspace, part: str, opt_out: OptOut) -> Left:
    """What the opt-out covers in a part, samples that were left out before included."""
    uids: set[str] = set()
    by_content: set[str] = set()
    for name in slice_names(workspace, part, "rows"):
        rows = read_table(workspace.table(part, "rows", name), ["uid", "url", "expected_sha256", "problem"])
        uids |= _uids(rows, opt_out.covers_rows(rows) | _equals(rows["problem"], REASON))
    for name in slice_names(workspace, part, "media"):
        media = read_table(workspace.table(part, "media", name), ["uid", "sha256"])
        uids |= _uids(media, opt_out.covers_uids(media["uid"]))
        by_content |= _uids(media, opt_out.covers_content(media["sha256"]))
    return Left(frozenset(uids), frozenset(by_content - uids))


def leave_out(corpus: Corpus, workspace: Workspace, part: str, opt_out: OptOut) -> int:
    """Rewrite what a part holds of samples that are to be left out; the rows stamp is left to the caller.

    Nothing is fetched or scored: stamps that were fresh are fresh afterwards. Call it while holding the part's lease.

    Returns:
        How many samples of the part are left out now.
    """
    left = left_out(workspace, part, opt_out)
    if not left.uids and not left.by_content:
        return 0
    settings = _settings(corpus, workspace, part)
    for name in sorted({name for stage in PART_STAGES for name in slice_names(workspace, part, stage)}):
        _leave_out_of_slice(workspace, part, name, left, settings)
    _restamp_part(workspace, part, settings)
    return len(left.uids) + len(left.by_content)


def remove_media(workspace: Workspace, part: str) -> None:
    """Remove the bytes that no table addresses any more; not while a release is being made of the part."""
    remove_unaddressed(workspace, part, slice_names(workspace, part, "media"))


def remove_media_unless_busy(workspace: Workspace, part: str) -> None:
    """`remove_media`, or nothing while a release is being made: `mmdata gc`, or the part's next fetch, does it then."""
    with suppress(UserError), leased(workspace, "release", f"opt-out of {part}"):
        remove_media(workspace, part)


def pardon(workspace: Workspace, part: str, opt_out: OptOut) -> None:
    """Have media fetched again whose file was refused for an entry that is no longer there."""
    for name in slice_names(workspace, part, "media"):
        media = read_table(workspace.table(part, "media", name), ["sha256", "error"])
        refused = _equals(media["error"], REASON) & pl.Series(media["sha256"]).is_not_null().to_numpy()
        if (refused & ~opt_out.covers_content(media["sha256"])).any():
            workspace.clear_part_stamp(part, "media")
            workspace.clear_slice_stamp(part, "media", name)


def finish_rows(workspace: Workspace, part: str, opt_out: OptOut) -> None:
    """Say in the stamp of a part's rows that this opt-out is in force, once it is."""
    stamp = workspace.part_stamp(part, "rows")
    if stamp is not None:
        stamps = _slice_stamps(workspace, part, "rows", stamp.slices)
        wanted = replace(_summed(stamp, stamps) if stamps is not None else stamp, opt_out=opt_out.digest)
        if wanted != stamp:
            workspace.write_part_stamp(part, "rows", wanted)


def _leave_out_of_slice(
    workspace: Workspace, part: str, name: str, left: Left, settings: Mapping[PartStage, str]
) -> None:
    tables = {stage: _table(workspace, part, stage, name) for stage in PART_STAGES}
    chosen = {stage: left.chosen(table) for stage, table in tables.items() if table is not None}
    if not any(one.any() for pair in chosen.values() for one in pair):
        return
    known = {stage: workspace.slice_stamp(part, stage, name) for stage in PART_STAGES}
    rows, media, features = (tables[stage] for stage in PART_STAGES)
    new_rows = None if rows is None else redacted_rows(rows, chosen["rows"][0])
    new_media = None if media is None else _repacked(workspace, part, name, media, *chosen["media"])
    digests = {
        "rows": (_digest(known["rows"]), "" if new_rows is None else table_digest(new_rows)),
        "media": (_digest(known["media"]), "" if new_media is None else table_digest(new_media)),
    }
    inputs = {
        "features": tuple(features_input(digests["rows"][n], digests["media"][n]) for n in (0, 1)),
        "media": digests["rows"],
        "rows": ("", ""),
    }
    if features is not None:
        new = redacted_features(features, *chosen["features"])
        stamp = known["features"]
        if stamp is not None and new_rows is not None and new_media is not None:
            samples = pl.DataFrame(new_rows.select(["uid", "kind"])).hstack(pl.DataFrame(new_media.select(["status"])))
            counts, reasons = feature_counts(new, samples)
            stamp = replace(stamp, counts={**stamp.counts, **counts}, reasons=reasons)
        _publish(workspace, part, "features", name, features, new, _carried(stamp, settings, "features", inputs))
    if media is not None and new_media is not None:
        stamp = known["media"]
        if stamp is not None:
            counts, media_reasons, due = media_counts(new_media)
            others = {key: stamp.counts[key] for key in stamp.counts.keys() & {"unspoken"}}
            stamp = replace(stamp, counts=counts | others, reasons=dict(media_reasons), next_retry_at=due)
        _publish(workspace, part, "media", name, media, new_media, _carried(stamp, settings, "media", inputs))
    if rows is not None and new_rows is not None:
        stamp = known["rows"]
        if stamp is not None:
            counts, reasons = rows_counts(stamp.counts, new_rows)
            stamp = replace(stamp, counts=counts, reasons=reasons)
        _publish(workspace, part, "rows", name, rows, new_rows, stamp)


def _repacked(
    workspace: Workspace, part: str, name: str, media: pa.Table, chosen: np.ndarray, by_content: np.ndarray
) -> pa.Table:
    """The media table without what is left out, over a tar of its own that holds only what it addresses."""
    new = redacted_media(media, chosen, by_content)
    addressed = pl.Series(media["offset"]).is_not_null().to_numpy() & (chosen | by_content)
    if not addressed.any():
        return new  # what was to go is gone from the tar already
    metadata = media.schema.metadata or {}
    old = workspace.media_tar(part, name, metadata)
    if not old.exists():
        return new
    records = new.to_pylist()
    owners: dict[tuple[str, int], str] = {}
    members: dict[str, tuple[IO[bytes], int, int]] = {}
    with old.open("rb") as file:
        for record in records:  # sorted by uid: what several share is named by the first, as when it was fetched
            for ext, offset, length in _members(record):
                owner = owners.setdefault((ext, offset), record["uid"])
                members[f"{owner}.{ext}"] = (file, offset, length)
        offsets, tar_sha256 = write_tar(old.parent, name, members)
    for record in records:
        placed = [
            {"ext": ext, "offset": offsets[f"{owners[ext, offset]}.{ext}"], "length": length}
            for ext, offset, length in _members(record)
        ]
        if placed:
            record.update(placed[0], further=placed[1:] or None)
    table = pa.Table.from_pylist(records, schema=MEDIA)
    return signed(table, metadata.get(SETTINGS_KEY, b"").decode(), tar_sha256)


def _members(record: Mapping[str, object]) -> Iterable[tuple[str, int, int]]:
    if record["ext"]:
        first = {name: record[name] for name in ("ext", "offset", "length")}
        for one in (first, *(record["further"] or [])):  # type: ignore[misc]
            yield one["ext"], one["offset"], one["length"]


def _publish(
    workspace: Workspace,
    part: str,
    stage: PartStage,
    name: str,
    old: pa.Table,
    new: pa.Table,
    stamp: SliceStamp | None,
) -> None:
    """Publish a table and its stamp, each where it is not as it should be."""
    if not new.equals(old, check_metadata=True):
        write_table(workspace.table(part, stage, name), new)
    if stamp is None:
        return
    stamp = replace(stamp, digest=table_digest(new))
    if stamp != workspace.slice_stamp(part, stage, name):
        workspace.write_slice_stamp(part, stage, name, stamp)


def _carried(
    stamp: SliceStamp | None,
    settings: Mapping[PartStage, str],
    stage: PartStage,
    inputs: Mapping[str, tuple[str, ...]],
) -> SliceStamp | None:
    """The stamp over new inputs: fresh if it was fresh over the old ones, and as stale as before if it was not."""
    if stamp is None or stage not in settings:
        return stamp
    old, new = (fingerprint(settings[stage], one) for one in inputs[stage])
    return replace(stamp, fingerprint=new) if stamp.fingerprint == old else stamp


def _restamp_part(workspace: Workspace, part: str, settings: Mapping[PartStage, str]) -> None:
    """The stamps of media and features over what their slices are now; fresh where they were fresh."""
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
    found = {name: workspace.slice_stamp(part, stage, name) for name in names}
    known = {name: stamp for name, stamp in found.items() if stamp is not None}
    return known if len(known) == len(found) else None


def _summed(stamp: PartStamp, slices: Mapping[str, SliceStamp]) -> PartStamp:
    """A part's stamp over what its slices say now; its fingerprint and its verdict stay."""
    return replace(
        stamp,
        digest=part_digest({name: one.digest for name, one in slices.items()}),
        rows=sum(one.rows for one in slices.values()),
        counts=add_counts(one.counts for one in slices.values()),
        reasons=add_counts(one.reasons for one in slices.values()),
        next_retry_at=min((one.next_retry_at for one in slices.values() if one.next_retry_at), default=None),
    )


def _settings(corpus: Corpus, workspace: Workspace, part: str) -> dict[PartStage, str]:
    """Fingerprints of the stages' settings; none where corpus.yaml no longer has the part's source."""
    entry = workspace.catalog().parts.get(part)
    if entry is None or entry.source not in {source.name for source in corpus.sources}:
        return {}
    return {stage: stage_settings(corpus, entry, stage) for stage in PART_STAGES}


def _table(workspace: Workspace, part: str, stage: PartStage, name: str) -> pa.Table | None:
    """A table with the types that it was made with: Parquet renames what lists hold, and digests would differ."""
    path: UPath = workspace.table(part, stage, name)
    if not path.exists():
        return None
    table = read_table(path)
    schema = SCHEMAS[stage]
    fields = [schema.field(field.name) if field.name in schema.names else field for field in table.schema]
    return table.cast(pa.schema(fields, metadata=table.schema.metadata))


def _digest(stamp: SliceStamp | None) -> str:
    return stamp.digest if stamp is not None else ""


def _uids(table: pa.Table, chosen: np.ndarray) -> set[str]:
    return set(table["uid"].filter(pa.array(chosen)).to_pylist())


def _equals(column: pa.ChunkedArray, value: str) -> np.ndarray:
    return (pl.Series(column) == value).fill_null(value=False).to_numpy()
