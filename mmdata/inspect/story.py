"""One sample's whole story, from the row of its source to its place in a shard."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
from upath import UPath

from mmdata.config import Corpus
from mmdata.engine.freshness import plan_part, releasable_parts
from mmdata.errors import UserError
from mmdata.optout.hashes import when_forgotten
from mmdata.optout.state import OPT_OUT
from mmdata.storage.tables import scan_tables
from mmdata.workspace.layout import PART_STAGES, Part, PartStage, Workspace

HEX = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True)
class Sighting:
    """A sample in one part: what each stage wrote about it.

    Args:
        rows, media, features: the sample's row of the stage's table, nulls left out; None where the stage has none.
            `embedding` is told by its length, `further` by the members' names.
        stale: stages whose table is older than the corpus asks for.
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
        sightings: one for each part that holds it; the first one is released.
        release_id: the latest release, which the rest is about; None before the first.
        selection: its row there; None where its part was not in it.
        places: its copies in the shards: key, shard, offset, length.
        instructions: file name -> records that show it.
        verdict: one sentence that sums it up.
    """

    uid: str
    sightings: Sequence[Sighting]
    release_id: str | None
    selection: Mapping[str, Any] | None
    places: Sequence[Mapping[str, Any]]
    instructions: Mapping[str, int]
    verdict: str


def explain(corpus: Corpus, workspace: Workspace, uid: str) -> Story:
    """Tell a sample's story.

    Args:
        uid: 32 hex digits, or the first of them where no other sample begins so; a copy's key is taken too.

    Raises:
        UserError: no sample has that uid, or several begin so; names them.
    """
    prefix = uid.strip().lower().partition("_r")[0]
    if not prefix or len(prefix) > 32 or not HEX.issuperset(prefix):
        raise UserError(f"{uid!r} is no uid: give 32 hex digits, or the first few of them")
    found = list(_sightings(corpus, workspace, prefix))
    uids = sorted({str(one.rows["uid"]) for one in found})
    if not uids and len(prefix) == 32 and when_forgotten(workspace, prefix) is not None:
        raise UserError(f"{prefix}: {_left_out(workspace, prefix)}")
    if not uids:
        raise UserError(f"no sample begins with {prefix!r} in {workspace.root}; is its part built? See `mmdata status`")
    if len(uids) > 1:
        raise UserError(f"{len(uids)} samples begin with {prefix!r}: {', '.join(uids[:8])}. Give more digits.")
    release_id = workspace.latest()
    selection, places, instructions = None, [], {}
    if release_id is not None:
        release = workspace.release_dir(release_id)
        selection = next(iter(_rows(release / "selection.parquet", uids[0])), None)
        places = [_without_nulls(row) for row in _rows(release / "index.parquet", uids[0])]
        instructions = _records(release, [str(place["key"]) for place in places])
    story = Story(uids[0], found, release_id, selection, places, instructions, "")
    return Story(uids[0], found, release_id, selection, places, instructions, _verdict(corpus, workspace, story))


def _sightings(corpus: Corpus, workspace: Workspace, prefix: str) -> Iterator[Sighting]:
    for part in workspace.catalog().parts.values():
        stamp = workspace.part_stamp(part.name, "rows")
        for slice_name in stamp.slices if stamp is not None else ():
            for row in _rows(workspace.table(part.name, "rows", slice_name), prefix):
                tables = {
                    stage: _plain(_row(workspace, part, stage, slice_name, str(row["uid"]))) for stage in PART_STAGES
                }
                known = part.source in {source.name for source in corpus.sources}
                stale = plan_part(corpus, workspace, part).stale if known and not part.removed else ()
                yield Sighting(part, slice_name, _without_nulls(row), tables["media"], tables["features"], stale)


def _row(workspace: Workspace, part: Part, stage: PartStage, slice_name: str, uid: str) -> dict[str, Any] | None:
    row = next(iter(_rows(workspace.table(part.name, stage, slice_name), uid)), None)
    return None if row is None else _without_nulls(row)


def _rows(path: UPath, prefix: str) -> list[dict[str, Any]]:
    """The rows whose uid begins so; tables are sorted by it, so Parquet's statistics skip the rest."""
    if not path.exists():
        return []
    between = pl.col("uid").is_between(pl.lit(prefix), pl.lit(prefix + "g"), closed="left")
    return scan_tables([path]).filter(between).collect().to_dicts()


def _without_nulls(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value is not None}


def _plain(row: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if row is None:
        return None
    plain = dict(row)
    if "embedding" in plain:
        plain["embedding"] = f"{len(plain['embedding'])} numbers"
    if "further" in plain:
        plain["further"] = ", ".join(member["ext"] for member in plain["further"])
    return plain


def _records(release: UPath, keys: Sequence[str]) -> dict[str, int]:
    """How many instruction records of each file show one of these keys, by image path."""
    found: dict[str, int] = {}
    needles = [f"tar://{key}." for key in keys]
    for path in sorted(release.glob("instruct-*.jsonl")) if needles else []:
        with path.open(encoding="utf-8") as lines:
            count = sum(any(needle in line for needle in needles) for line in lines)
        if count:
            found[path.name] = count
    return found


def _verdict(corpus: Corpus, workspace: Workspace, story: Story) -> str:
    if any(one.rows.get("problem") == OPT_OUT for one in story.sightings):
        return _left_out(workspace, story.uid)
    if story.selection is None:
        if story.release_id is None:
            return "not in a release: there is none yet"
        _, refused = releasable_parts(corpus, workspace)
        parts = [one.part.name for one in story.sightings]
        reasons = [f"part {name}: {refused[name]}" for name in parts if name in refused]
        return f"not in release {story.release_id}: {'; '.join(reasons) or 'its part was not in it'}"
    row = story.selection
    if row["keep"]:
        return f"in release {story.release_id}, {row['repeats']}x, split {row['split']}"
    kept = f" of {row['duplicate_of']}" if row.get("duplicate_of") else ""
    return f"not in release {story.release_id}: {row['reason']}{kept}"


def _left_out(workspace: Workspace, uid: str) -> str:
    entry = when_forgotten(workspace, uid)
    if entry is None:
        return "left out: its URL, its domain, its file or its uid is in an opt-out list of corpus.yaml, or in the log"
    return f"forgotten at {entry.at}, entry {entry.number} of `mmdata forget --log`; nothing but its uid is kept"


def extra_columns(sighting: Sighting) -> dict[str, Any]:
    """The source's own columns of a sample."""
    extra = json.loads(sighting.rows.get("extra") or "{}")
    return extra if isinstance(extra, dict) else {}
