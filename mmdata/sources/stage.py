"""The rows stage: reads a part of a source file into slices of rows; bad rows are kept, with the reason.

`mmdata.takedown.read_part` runs it, and brings the opt-out to the tables of the later stages in between.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from typing import Any

import pyarrow as pa
from upath import UPath

from mmdata.config import Corpus, Source
from mmdata.engine.part_run import SliceResult, log_slice, publish_slice, stamp_part
from mmdata.engine.stage_fingerprints import named_settings, rows_input, stage_settings
from mmdata.errors import DataError, UserError
from mmdata.fingerprint import fingerprint
from mmdata.observe import logs
from mmdata.optout.hashes import OptOut
from mmdata.optout.state import OPT_OUT
from mmdata.sources.batches import Batch
from mmdata.sources.captions import CaptionSource, captions_of
from mmdata.sources.document_rows import document_rows
from mmdata.sources.howto100m import clip_rows
from mmdata.sources.patterns import relative_name
from mmdata.sources.row import read_rows
from mmdata.sources.rows_table import rows_table, without_opted_out
from mmdata.sources.source_files import read_batches, seen_state
from mmdata.stage import Progress, StageReport
from mmdata.workspace.layout import FileEntry, Part, PartStamp, SliceStamp, Workspace

_log = logs.logger(__name__)

SLICE_NAME = "{:04d}"
LEFT_OUT = "left_out_bytes: "
"""Begins the name of the count of bytes in a binary column that is left out of `extra`; the column's name follows."""

_REMEDY = "Remedy: `mmdata build` looks at the file again."


@dataclass(frozen=True)
class RowsPart:
    """One part of the catalogue with its source in corpus.yaml. See `open_part`."""

    corpus: Corpus
    workspace: Workspace
    part: Part
    source: Source

    @cached_property
    def spans(self) -> dict[str, tuple[int, int]]:
        return slice_spans(self.part, self.source.slice_rows)

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Slice name -> the fingerprint that its stamp has while the slice is up to date."""
        return {name: fingerprint(self._settings, rows_input(self.part), name) for name in self.spans}

    @cached_property
    def _settings(self) -> str:
        return stage_settings(self.corpus, self.part, "rows")

    def fresh_slices(self) -> dict[str, SliceStamp]:
        """The stamps of the slices that are up to date."""
        fresh: dict[str, SliceStamp] = {}
        for name, expected in self.fingerprints.items():
            stamp = self.workspace.slice_stamp(self.part.name, "rows", name)
            has_table = self.workspace.table(self.part.name, "rows", name).exists()
            if stamp is not None and stamp.fingerprint == expected and has_table:
                fresh[name] = stamp
        return fresh

    def read_slices(
        self, opt_out: OptOut, progress: Progress, *, reread_opted_out: bool
    ) -> tuple[dict[str, SliceStamp], int]:
        """Read the slices that are not up to date, and publish each as soon as it is read.

        The stamp of the part is removed first; `stamp` writes it again.

        Args:
            reread_opted_out: read fresh slices with opted-out rows again, since an opt-out entry may have been removed.

        Returns:
            The stamps of all slices, and how many slices did not have to be read.

        Raises:
            DataError: the source file is missing or broken, or has changed since it was catalogued; names it.
        """
        part, source = self.part, self.source
        stamps = self.fresh_slices()
        if reread_opted_out:
            stamps = {name: stamp for name, stamp in stamps.items() if OPT_OUT not in stamp.reasons}
        reused = len(stamps)
        pending = [name for name in self.spans if name not in stamps]
        total = part.stop - part.start
        done = sum(stop - start for start, stop in (self.spans[name] for name in stamps))
        captions = captions_of(source, self.workspace)
        if pending:
            self.workspace.clear_part_stamp(part.name, "rows")
            file_entry = _check_unchanged(self.workspace, part, captions)
            for name, result in self._read(pending, _nearest_offset(file_entry, source, part), captions):
                stamps[name] = self._publish(name, without_opted_out(result, opt_out), len(stamps) + 1)
                done += self.spans[name][1] - self.spans[name][0]
                progress("rows", done, total)
            _check_unchanged(self.workspace, part, captions)
        progress("rows", total, total)
        return stamps, reused

    def stamp(self, stamps: Mapping[str, SliceStamp], opt_out_digest: str, reused: int) -> StageReport:
        """Write the stamp of the part, which names the opt-out that its tables follow.

        Raises:
            DataError: the slices hold fewer or more rows than the catalogue says.
        """
        part = self.part
        ordered = {name: stamps[name] for name in self.spans}
        rows = sum(stamp.counts["rows"] for stamp in ordered.values())
        if rows != part.stop - part.start:
            raise DataError(
                f"{part.path}: {rows} rows were read, but the catalogue says {part.stop - part.start}. "
                "Remedy: `mmdata build` looks at the file again."
            )
        expected = fingerprint(self._settings, rows_input(self.part))
        named = named_settings(self.corpus, self.part, "rows")
        stamp = stamp_part(self.workspace, self.part.name, "rows", expected, ordered, None, opt_out_digest, named)
        return _report(self.workspace, self.part.name, stamp, reused)

    def _read(
        self, pending: Sequence[str], nearest: tuple[int, int], captions: CaptionSource | None
    ) -> Iterator[tuple[str, SliceResult]]:
        part, source = self.part, self.source
        file_name = relative_name(source, part.path)
        started_s = time.perf_counter()
        for start, stop in _ranges_to_read(pending, self.spans):
            batches = read_batches(source, UPath(part.path), start, stop, nearest)
            names = iter([name for name in pending if start <= self.spans[name][0] < stop])
            for rows in _cut_into_slices(batches, start, stop, source.slice_rows):
                further_counts = _left_out_bytes(rows)
                if captions:
                    caption_counts: Counter[str] = Counter()
                    clips = clip_rows(rows, source, file_name, self.corpus.clips, captions, caption_counts)
                    result = rows_table(clips, part)
                    further_counts |= {f"captions_{name}": count for name, count in sorted(caption_counts.items())}
                elif source.kind == "documents":
                    picture_counts: Counter[str] = Counter()
                    result = rows_table(document_rows(rows, source, file_name, picture_counts), part)
                    further_counts |= dict(sorted(picture_counts.items()))
                else:
                    result = rows_table(read_rows(rows, source, file_name), part)
                result = replace(result, counts={**result.counts, **further_counts})
                yield next(names), replace(result, numbers={"seconds": time.perf_counter() - started_s})
                started_s = time.perf_counter()

    def _publish(self, name: str, result: SliceResult, done: int) -> SliceStamp:
        stamp = publish_slice(self.workspace, self.part.name, "rows", name, self.fingerprints[name], result)
        with logs.context(part=self.part.name, stage="rows"):
            logs.samples(_log, "rows are bad", _bad_rows(result.table))
            log_slice("rows", name, stamp, done, len(self.spans))
        return stamp


def open_part(corpus: Corpus, workspace: Workspace, part_name: str) -> RowsPart:
    """A part that is to be read. Raises UserError if the catalogue has no such part, or corpus.yaml no such source."""
    part = workspace.part(part_name)
    source = next((source for source in corpus.sources if source.name == part.source), None)
    if source is None:
        raise UserError(f"part {part_name}: source {part.source} is not in corpus.yaml any more")
    return RowsPart(corpus, workspace, part, source)


def slice_spans(part: Part, slice_rows: int) -> dict[str, tuple[int, int]]:
    """Slice name -> its rows in the file: the first, and one after the last."""
    starts = range(part.start, part.stop, slice_rows)
    return {SLICE_NAME.format(n): (start, min(start + slice_rows, part.stop)) for n, start in enumerate(starts)}


def _bad_rows(table: pa.Table) -> Iterator[tuple[str, dict[str, Any]]]:
    """The problem of each bad row, and the fields that the log shows of it."""
    for uid, row, problem in zip(*(table[name].to_pylist() for name in ("uid", "row", "problem")), strict=True):
        if problem is not None:
            yield problem, {"uid": uid, "row": row}


def _ranges_to_read(pending: Sequence[str], spans: Mapping[str, tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Ranges of rows; neighbouring slices make one range, so that the file is opened once for them."""
    for _, run in groupby(enumerate(pending), key=lambda item: int(item[1]) - item[0]):
        names = [name for _, name in run]
        yield spans[names[0]][0], spans[names[-1]][1]


def _cut_into_slices(batches: Iterator[Batch], start: int, stop: int, slice_rows: int) -> Iterator[list[Batch]]:
    """Regroup batches into slices. Raises DataError if there are fewer rows than the catalogue says."""
    waiting: list[Batch] = []
    row, slice_stop = start, min(start + slice_rows, stop)
    for batch in batches:
        rest = batch
        while row + len(rest) > slice_stop:
            head, rest = rest.split(slice_stop - row)
            yield [*waiting, head]
            waiting, row, slice_stop = [], slice_stop, min(slice_stop + slice_rows, stop)
        waiting.append(rest)
        row += len(rest)
        if row == slice_stop:
            yield waiting
            waiting, slice_stop = [], min(slice_stop + slice_rows, stop)
    if row != stop:
        raise DataError(f"row {row}: the file ends here, though the catalogue says {stop} rows. {_REMEDY}")


def _left_out_bytes(batches: Sequence[Batch]) -> dict[str, int]:
    """Count -> bytes, one count for each binary column that is not written to `extra`."""
    sizes: Counter[str] = Counter()
    for batch in batches:
        for name, mean_bytes in batch.left_out.items():
            sizes[LEFT_OUT + name] += round(mean_bytes * len(batch))
    return dict(sorted(sizes.items()))


def _nearest_offset(file_entry: FileEntry, source: Source, part: Part) -> tuple[int, int]:
    """A row at or before the part's first row, and the byte where that row begins."""
    number, offsets = part.start // source.part_rows, file_entry.get("offsets") or []
    return (number * source.part_rows, offsets[number]) if number < len(offsets) else (0, 0)


def _check_unchanged(workspace: Workspace, part: Part, captions: CaptionSource | None) -> FileEntry:
    """The catalogue's entry of the part's file. Raises DataError if the file or its captions have changed since."""
    file_entry = workspace.catalog().files.get(part.path)
    try:
        size_and_state = seen_state(UPath(part.path))
        if captions and captions.has_changed(file_entry.get("captions") if file_entry else None):
            raise DataError(f"{captions.place}: has changed since it was catalogued. {_REMEDY}")
    except OSError as error:
        raise DataError(f"{error.filename or part.path}: cannot be read ({error}). {_REMEDY}") from None
    catalogued = file_entry and (file_entry["bytes"], file_entry["seen"], file_entry["digest"])
    if file_entry is None or catalogued != (*size_and_state, part.digest):
        raise DataError(f"{part.path}: has changed since it was catalogued. {_REMEDY}")
    return file_entry


def _report(workspace: Workspace, part_name: str, stamp: PartStamp, reused: int) -> StageReport:
    by_count = sorted(stamp.reasons.items(), key=lambda item: -item[1])
    bad = [{"problem": problem, "rows": count} for problem, count in by_count]
    left_out = [
        {"column": name.removeprefix(LEFT_OUT), "bytes": size}
        for name, size in stamp.counts.items()
        if name.startswith(LEFT_OUT)
    ]
    tables = {"bad rows": bad, "binary columns left out of extra": left_out}
    return StageReport(
        "rows",
        part_name,
        counts=stamp.counts,
        reasons=stamp.reasons,
        tables={name: table for name, table in tables.items() if table},
        paths={"rows": str(workspace.part_dir(part_name) / "rows")},
        version=stamp.digest,
        slices_done=len(stamp.slices) - reused,
        slices_reused=reused,
    )
