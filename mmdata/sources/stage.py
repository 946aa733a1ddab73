"""The rows stage: a part of a source file becomes slices of rows, the bad ones kept with a reason."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import pyarrow as pa
from upath import UPath

from mmdata.config import Corpus, Source
from mmdata.engine.freshness import named_settings, rows_input, stage_settings
from mmdata.engine.part_run import SliceResult, publish_slice, stamp_part, tell_slice
from mmdata.errors import DataError, UserError
from mmdata.fingerprint import fingerprint
from mmdata.observe import logs
from mmdata.optout.hashes import OptOut, load_opt_out
from mmdata.optout.redact import redacted_rows, rows_counts
from mmdata.optout.state import REASON as OPT_OUT
from mmdata.samples import ROWS
from mmdata.sources.batches import Batch
from mmdata.sources.captions import CaptionSource, captions_of
from mmdata.sources.howto100m import clip_rows
from mmdata.sources.row import Row, read_rows
from mmdata.sources.source_files import read_batches, relative_name, seen_state
from mmdata.stage import Progress, StageReport, silent
from mmdata.takedown.parts import leave_out, pardon, remove_media_unless_busy
from mmdata.workspace.layout import Part, PartStamp, SliceStamp, Workspace

_log = logs.logger(__name__)

SLICE_NAME = "{:04d}"


def read_part(corpus: Corpus, workspace: Workspace, part_name: str, progress: Progress = silent) -> StageReport:
    """Read a part's rows into slices, published as they come; slices that are fresh are not read again.

    Raises:
        UserError: the catalogue has no such part, or corpus.yaml no longer names its source.
        DataError: the source file is gone, is broken, or is not the one that was catalogued; names it.
    """
    part = workspace.part(part_name)
    source = next((one for one in corpus.sources if one.name == part.source), None)
    if source is None:
        raise UserError(f"part {part_name}: source {part.source} is not in corpus.yaml any more")
    settings = stage_settings(corpus, part, "rows")
    opt_out = load_opt_out(workspace)
    before = workspace.part_stamp(part_name, "rows")
    spans, file = slice_spans(part, source.slice_rows), relative_name(source, part.path)
    prints = {name: fingerprint(settings, rows_input(part), name) for name in spans}
    stamps = _usable(workspace, part_name, prints, before, opt_out)
    pending = [name for name in spans if name not in stamps]
    total, done = part.stop - part.start, sum(high - low for low, high in (spans[name] for name in stamps))
    reused = len(stamps)
    captions = captions_of(source, workspace)
    if pending:
        workspace.clear_part_stamp(part_name, "rows")
        known = _known_place(_check_unchanged(workspace, part, captions), source, part)
    since = time.perf_counter()
    for low, high in _runs(pending, spans):
        batches = read_batches(source, UPath(part.path), low, high, known)
        names = iter([name for name in pending if low <= spans[name][0] < high])
        for rows in _cut(batches, low, high, source.slice_rows):
            name = next(names)
            if captions:
                told: Counter[str] = Counter()
                result = rows_table(clip_rows(rows, source, file, corpus.clips, captions, told), part)
                told_of = {f"captions_{what}": count for what, count in sorted(told.items())}
                result = replace(result, counts={**result.counts, **told_of})
            else:
                result = rows_table(read_rows(rows, source, file), part)
            result = replace(without_opted_out(result, opt_out), numbers={"seconds": time.perf_counter() - since})
            stamps[name] = publish_slice(workspace, part_name, "rows", name, prints[name], result)
            with logs.context(part=part_name, stage="rows"):
                logs.samples(_log, "rows are bad", _bad(result.table))
                tell_slice("rows", name, stamps[name], len(stamps), len(spans))
            since = time.perf_counter()
            done += spans[name][1] - spans[name][0]
            progress("rows", done, total)
    if pending:
        _check_unchanged(workspace, part, captions)
    progress("rows", total, total)
    if opt_out.digest and (before is None or before.opt_out != opt_out.digest):
        leave_out(corpus, workspace, part_name, opt_out)
        remove_media_unless_busy(workspace, part_name)
        stamps = _fresh(workspace, part_name, prints)
    ordered = {name: stamps[name] for name in spans}
    _check_all_read(part, ordered)
    expected = fingerprint(settings, rows_input(part))
    named = named_settings(corpus, part, "rows")
    stamp = stamp_part(workspace, part_name, "rows", expected, ordered, None, opt_out.digest, named)
    return _report(workspace, part_name, stamp, reused)


def slice_spans(part: Part, slice_rows: int) -> dict[str, tuple[int, int]]:
    """Slice name -> its rows in the file, first and one after the last."""
    starts = range(part.start, part.stop, slice_rows)
    return {SLICE_NAME.format(n): (low, min(low + slice_rows, part.stop)) for n, low in enumerate(starts)}


def rows_table(rows: Iterable[Row], part: Part) -> SliceResult:
    """The table of one slice: one row a uid, rows that say the same collapsed into one with `copies`.

    Counts source rows (`rows`), what they hold (`samples`: of an index of videos the clips), uids, usable and bad ones.
    """
    kept: list[Row] = []
    copies: list[int] = []
    places: dict[str, int] = {}
    read = samples = 0
    problems: Counter[str] = Counter()
    for row in rows:
        samples += 1
        read += not row.further
        if row.problem is not None:
            problems[row.problem] += 1
        else:
            place = places.setdefault(row.uid, len(kept))
            if place < len(kept):
                copies[place] += 1
                continue
        kept.append(row)
        copies.append(1)
    uids = len(kept)
    columns = dict(zip(Row._fields, zip(*kept, strict=True) if kept else [()] * len(Row._fields), strict=True))
    columns |= {"source": (part.source,) * uids, "part": (part.name,) * uids, "copies": tuple(copies)}
    table = pa.table({name: pa.array(columns[name], ROWS.field(name).type) for name in ROWS.names}, schema=ROWS)
    table = table.sort_by("uid")
    counts = {"rows": read, "samples": samples, "uids": uids, "usable": uids - problems.total()}
    counts |= {"repeated": samples - uids, "bad": problems.total()}
    return SliceResult(table, counts, dict(sorted(problems.items())))


def _bad(table: pa.Table) -> Iterator[tuple[str, dict[str, Any]]]:
    for uid, row, problem in zip(*(table[name].to_pylist() for name in ("uid", "row", "problem")), strict=True):
        if problem is not None:
            yield problem, {"uid": uid, "row": row}


def without_opted_out(result: SliceResult, opt_out: OptOut) -> SliceResult:
    """A slice's rows without what is to be left out: those rows keep their uid, and nothing else of them stays."""
    covered = opt_out.covers_rows(result.table)
    if not covered.any():
        return result
    table = redacted_rows(result.table, covered)
    counts, reasons = rows_counts(result.counts, table)
    return SliceResult(table, counts, reasons)


def _usable(
    workspace: Workspace, part: str, prints: Mapping[str, str], before: PartStamp | None, opt_out: OptOut
) -> dict[str, SliceStamp]:
    """The slices that need not be read again; those with rows left out do where an entry may have been taken out."""
    stamps = _fresh(workspace, part, prints)
    if before is not None and not opt_out.pardons_since(before.opt_out):
        return stamps
    pardon(workspace, part, opt_out)
    return {name: stamp for name, stamp in stamps.items() if OPT_OUT not in stamp.reasons}


def _fresh(workspace: Workspace, part: str, prints: Mapping[str, str]) -> dict[str, SliceStamp]:
    found: dict[str, SliceStamp] = {}
    for name, expected in prints.items():
        stamp = workspace.slice_stamp(part, "rows", name)
        if stamp is not None and stamp.fingerprint == expected and workspace.table(part, "rows", name).exists():
            found[name] = stamp
    return found


def _runs(pending: Sequence[str], spans: Mapping[str, tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The rows to read, as ranges: neighbouring slices are read in one go."""
    for _, run in groupby(enumerate(pending), key=lambda item: int(item[1]) - item[0]):
        names = [name for _, name in run]
        yield spans[names[0]][0], spans[names[-1]][1]


def _cut(batches: Iterator[Batch], low: int, high: int, slice_rows: int) -> Iterator[list[Batch]]:
    """Batches regrouped into slices. Raises DataError where there are fewer rows than the catalogue says."""
    waiting: list[Batch] = []
    at, end = low, min(low + slice_rows, high)
    for batch in batches:
        while at + len(batch) > end:
            head, batch = batch.split(end - at)  # noqa: PLW2901 - what is left of it goes on
            yield [*waiting, head]
            waiting, at, end = [], end, min(end + slice_rows, high)
        waiting.append(batch)
        at += len(batch)
        if at == end:
            yield waiting
            waiting, end = [], min(end + slice_rows, high)
    if at != high:
        raise DataError(f"row {at}: the file ends here, though the catalogue says {high} rows. {_LOOK_AGAIN}")


_LOOK_AGAIN = "Remedy: materialise `source_catalog`, which looks at the file again."


def _known_place(about: Mapping[str, Any], source: Source, part: Part) -> tuple[int, int]:
    """A row at or before the part's first and the byte at which it begins, by the catalogue's entry of the file."""
    number, offsets = part.start // source.part_rows, about.get("offsets") or []
    return (number * source.part_rows, offsets[number]) if number < len(offsets) else (0, 0)


def _check_unchanged(workspace: Workspace, part: Part, captions: CaptionSource | None) -> Mapping[str, Any]:
    """The catalogue's entry of the part's file. Raises DataError where file or captions are others by now."""
    about = workspace.catalog().files.get(part.path, {})
    try:
        now = seen_state(UPath(part.path))
        if captions and captions.has_changed(about.get("captions")):
            raise DataError(f"{captions.place}: has changed since it was catalogued. {_LOOK_AGAIN}")
    except OSError as error:
        raise DataError(f"{error.filename or part.path}: cannot be read ({error}). {_LOOK_AGAIN}") from None
    if (about.get("bytes"), about.get("seen"), about.get("digest")) != (*now, part.digest):
        raise DataError(f"{part.path}: has changed since it was catalogued. {_LOOK_AGAIN}")
    return about


def _check_all_read(part: Part, slices: Mapping[str, SliceStamp]) -> None:
    if (read := sum(one.counts["rows"] for one in slices.values())) != part.stop - part.start:
        raise DataError(
            f"{part.path}: {read} rows were read where the catalogue has {part.stop - part.start}. "
            "Remedy: materialise source_catalog again, then source_rows."
        )


def _report(workspace: Workspace, part_name: str, stamp: PartStamp, reused: int) -> StageReport:
    bad = [{"problem": name, "rows": count} for name, count in sorted(stamp.reasons.items(), key=lambda one: -one[1])]
    return StageReport(
        "rows",
        part_name,
        counts=stamp.counts,
        reasons=stamp.reasons,
        tables={"bad rows": bad} if bad else {},
        paths={"rows": str(workspace.part_dir(part_name) / "rows")},
        slices_done=len(stamp.slices) - reused,
        slices_reused=reused,
    )
