"""Everything that is known of one sample, from its row in the source to its place in a shard, for `mmdata explain`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl
from upath import UPath

from mmdata.config import Corpus
from mmdata.engine.freshness import plan_part, releasable_parts
from mmdata.errors import DataError, UserError
from mmdata.optout.hashes import when_forgotten
from mmdata.optout.state import OPT_OUT
from mmdata.releases.draft import release_inputs
from mmdata.releases.manifest import find_manifest
from mmdata.samples import own_columns
from mmdata.storage.tables import scan_tables
from mmdata.workspace.layout import Part, Workspace


@dataclass(frozen=True, slots=True)
class Sighting:
    """What each stage wrote about a sample in one part.

    Args:
        rows, media, features: the sample's row in the table of the stage, without nulls; None if it has none.
            Embeddings are replaced by their lengths, and `further` by the extensions of the further files.
        stale: stages whose tables are out of date.
    """

    part: Part
    slice_name: str
    rows: Mapping[str, Any]
    media: Mapping[str, Any] | None
    features: Mapping[str, Any] | None
    stale: Sequence[str]


@dataclass(frozen=True, slots=True)
class Story:
    """What is known of a sample.

    Args:
        sightings: one for each part that holds the sample; only the first can be in a release.
        release_id: the latest release, which the other fields refer to; None before the first.
        selection: its row in the selection; None if its part was not selected from.
        places: its copies in the shards: key, shard, offset, length.
        instructions: file name -> number of records that show it.
        verdict: a summary in one sentence.
    """

    uid: str
    sightings: Sequence[Sighting]
    release_id: str | None
    selection: Mapping[str, Any] | None
    places: Sequence[Mapping[str, Any]]
    instructions: Mapping[str, int]
    verdict: str


def explain(corpus: Corpus, workspace: Workspace, uid: str) -> Story:
    """Collect everything that is known of a sample.

    Args:
        uid: 32 hex digits, or enough of the first ones to name a single sample; the key of a copy is accepted too.

    Raises:
        UserError: no sample has this uid, or several begin with these digits.
    """
    prefix = uid.strip().lower().partition("_r")[0]
    if not prefix or len(prefix) > 32 or not set(prefix) <= set("0123456789abcdef"):
        raise UserError(f"{uid!r} is not a uid. Remedy: give its 32 hex digits, or the first few of them")
    sightings = list(_sightings(corpus, workspace, prefix))
    uids = sorted({str(sighting.rows["uid"]) for sighting in sightings})
    if not uids and len(prefix) == 32 and when_forgotten(workspace, prefix) is not None:
        raise UserError(f"{prefix}: {_left_out(workspace, prefix)}")
    if not uids:
        raise UserError(f"no sample begins with {prefix!r} in {workspace.root}; is its part built? See `mmdata status`")
    if len(uids) > 1:
        raise UserError(f"{len(uids)} samples begin with {prefix!r}: {', '.join(uids[:8])}. Remedy: give more digits.")
    release_id = workspace.latest()
    selection, places, instructions = None, [], {}
    if release_id is not None:
        release = workspace.release_dir(release_id)
        selection = next(iter(_rows(release / "selection.parquet", uids[0])), None)
        places = [_without_nulls(row) for row in _rows(release / "index.parquet", uids[0])]
        instructions = _count_records(release, [str(place["key"]) for place in places])
    story = Story(uids[0], sightings, release_id, selection, places, instructions, "")
    return replace(story, verdict=_verdict(corpus, workspace, story))


def _sightings(corpus: Corpus, workspace: Workspace, prefix: str) -> Iterator[Sighting]:
    configured = {source.name for source in corpus.sources}
    for part, slice_name in _places(corpus, workspace, prefix):
        for row in _rows(workspace.table(part.name, "rows", slice_name), prefix):
            media, features = (
                _readable(workspace.table(part.name, stage, slice_name), str(row["uid"]))
                for stage in ("media", "features")
            )
            is_configured = part.source in configured and not part.removed
            stale = plan_part(corpus, workspace, part).stale if is_configured else ()
            yield Sighting(part, slice_name, _without_nulls(row), media, features, stale)


def _places(corpus: Corpus, workspace: Workspace, prefix: str) -> Iterator[tuple[Part, str]]:
    """The slices that may hold uids with a prefix, in the order of the parts.

    The selection of the latest release is an index by uid of its parts, as long as they stay as they were, and only if
    no uid stands in several of them. All other parts are looked through.
    """
    indexed = _indexed_slices(corpus, workspace, prefix)
    for part in workspace.catalog().parts.values():
        if part.name in indexed:
            slice_names: Sequence[str] = indexed[part.name]
        else:
            stamp = workspace.part_stamp(part.name, "rows")
            slice_names = stamp.slices if stamp is not None else ()
        yield from ((part, name) for name in slice_names)


def _indexed_slices(corpus: Corpus, workspace: Workspace, prefix: str) -> dict[str, list[str]]:
    """For each part that the latest selection speaks for, the slices that hold the uids with a prefix by it."""
    latest = workspace.latest()
    manifest = find_manifest(workspace, latest)
    if latest is None or manifest is None:
        return {}
    parts = sorted(manifest.get("parts", ()))
    try:
        is_current = release_inputs(corpus, workspace, parts) == manifest["inputs"]
    except (DataError, UserError):  # a stamp or a list of concepts is gone
        is_current = False
    if not is_current:
        return {}
    rows = _rows(workspace.release_dir(latest) / "selection.parquet", prefix, ("uid", "part", "slice", "copies"))
    slices: dict[str, list[str]] = {part: [] for part in parts}
    for part, slice_name in sorted({(row["part"], row["slice"]) for row in rows}):
        slices[part].append(slice_name)
    if len(rows) == 1:  # else the prefix is refused
        place = workspace.table(rows[0]["part"], "rows", rows[0]["slice"])
        if [row["copies"] for row in _rows(place, rows[0]["uid"], ("copies",))] != [rows[0]["copies"]]:
            return {}  # copies that the slice does not have stand in other parts
    return slices


def _rows(path: UPath, prefix: str, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """The rows whose uid begins with a prefix. Args: columns: those that are read; None: all."""
    if not path.exists():
        return []
    # a range instead of a prefix match: tables are sorted by uid, so Parquet's statistics skip most of a file
    between = pl.col("uid").is_between(pl.lit(prefix), pl.lit(prefix + "g"), closed="left")
    rows = scan_tables([path]).filter(between)
    return (rows if columns is None else rows.select(columns)).collect().to_dicts()


def _without_nulls(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value is not None}


def _readable(table: UPath, uid: str) -> dict[str, Any] | None:
    """A sample's row of a table with long values shortened; None if there is none."""
    for row in map(_without_nulls, _rows(table, uid)):
        for vector in {"embedding", "text_embedding"} & row.keys():
            row[vector] = f"{len(row[vector])} numbers"
        if "further" in row:
            row["further"] = ", ".join(member["ext"] for member in row["further"])
        return row
    return None


def _count_records(release: UPath, keys: Sequence[str]) -> dict[str, int]:
    """The number of instruction records in each file whose image paths have one of the keys."""
    counts: dict[str, int] = {}
    needles = [f"tar://{key}." for key in keys]
    for path in sorted(release.glob("instruct-*.jsonl")) if needles else []:
        with path.open(encoding="utf-8") as lines:
            count = sum(any(needle in line for needle in needles) for line in lines)
        if count:
            counts[path.name] = count
    return counts


def _verdict(corpus: Corpus, workspace: Workspace, story: Story) -> str:
    if any(sighting.rows.get("problem") == OPT_OUT for sighting in story.sightings):
        return _left_out(workspace, story.uid)
    if story.selection is None:
        if story.release_id is None:
            return "not in a release: there is none yet"
        _, refused = releasable_parts(corpus, workspace)
        parts = [sighting.part.name for sighting in story.sightings]
        reasons = [f"part {name}: {refused[name]}" for name in parts if name in refused]
        return f"not in release {story.release_id}: {'; '.join(reasons) or 'its part was not in it'}"
    row = story.selection
    if row["keep"]:
        return f"in release {story.release_id}, {row['repeats']}x, split {row['split']}"
    original = f" of {row['duplicate_of']}" if row.get("duplicate_of") else ""
    return f"not in release {story.release_id}: {row['reason']}{original}"


def _left_out(workspace: Workspace, uid: str) -> str:
    entry = when_forgotten(workspace, uid)
    if entry is None:
        return "left out: its URL, its domain, its file or its uid is in an opt-out list of corpus.yaml, or in the log"
    return f"forgotten at {entry.at}, entry {entry.number} of `mmdata forget --log`; nothing but its uid is kept"


def extra_columns(sighting: Sighting) -> dict[str, Any]:
    """The further columns that a sample has in its source."""
    return own_columns(sighting.rows.get("extra"))
