"""Reads opt-out lists (plain text, CSV, Parquet) and keeps the entries of the standing lists as hashes."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from mmdata.config import OptOutList
from mmdata.display import without_credentials
from mmdata.errors import UserError
from mmdata.optout.hashes import hashes_digest, read_hashes, write_hashes
from mmdata.optout.selectors import KINDS, Kind, Selector, guess_selector, selector_of
from mmdata.optout.state import standing_path, standing_table
from mmdata.storage.atomic import publish_json, withdraw
from mmdata.workspace.json_files import read_json
from mmdata.workspace.layout import Workspace

DELIMITERS = {".csv": ",", ".tsv": "\t"}
PARQUET = frozenset({".parquet", ".pq"})


def read_list(settings: OptOutList) -> Iterator[Selector]:
    """The entries of a list. Empty lines and nulls are skipped, and so are lines of plain text that begin with #.

    Raises:
        UserError: the list cannot be read, lacks the column, or has a malformed entry; names file and line.
    """
    path = UPath(settings.path)
    suffix = path.suffix.lower()
    try:
        with path.open("rb") as file:
            if suffix in PARQUET:
                yield from _parquet(settings, pq.ParquetFile(file))
                return
            lines = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
            if suffix in DELIMITERS:
                yield from _delimited(settings, lines, DELIMITERS[suffix])
            else:
                entries = ((number, line.strip()) for number, line in enumerate(lines, 1))
                uncommented = (entry for entry in entries if not entry[1].startswith("#"))
                yield from _selectors(settings, settings.holds, uncommented)
    except (OSError, ValueError, csv.Error, pa.ArrowException) as error:
        raise UserError(
            f"{settings.path}: the opt-out list cannot be read ({type(error).__name__}: {error}). Nothing is built "
            "without it. Remedy: restore the file, or correct `optout` in corpus.yaml."
        ) from None


def update_standing(lists: list[OptOutList], workspace: Workspace) -> dict[str, int]:
    """Read the standing lists and write their entries as hashes; returns the number of entries by kind.

    Nothing is written to a workspace that never had a list.

    Raises:
        UserError: a list cannot be read; the hashes written before stay.
    """
    path = standing_path(workspace)
    before = read_json(path)
    if not lists and before is None:
        return {}
    entries: set[tuple[Kind, bytes]] = set()
    summaries = []
    for opt_out_list in lists:
        hashes = _hashes_of(opt_out_list)
        entries |= hashes
        path_shown = without_credentials(opt_out_list.path)
        summaries.append({"path": path_shown, "entries": len(hashes), "digest": hashes_digest(hashes)})
    digest = hashes_digest(entries)
    taken_out = int((before or {}).get("taken_out", 0))
    if before and before["digest"] != digest:
        old_entries = read_hashes(standing_table(workspace, before["digest"]), before["digest"])
        taken_out += not entries.issuperset(old_entries)
    now = {"lists": summaries, "digest": digest, "taken_out": taken_out}
    if now != before:
        write_hashes(standing_table(workspace, digest), entries)
        publish_json(path, now)
        # the last table stays: a build that runs now may still read it
        kept = {f"standing-{digest}", f"standing-{(before or {}).get('digest')}"}
        withdraw(*[table for table in path.parent.glob("standing-*.parquet") if table.stem not in kept])
    return {kind: sum(entry_kind == kind for entry_kind, _ in entries) for kind in KINDS}


def lists_changed(lists: list[OptOutList], workspace: Workspace) -> bool:
    """Whether the lists have changed since the workspace last read them. Raises UserError if one cannot be read."""
    before = read_json(standing_path(workspace))
    if not lists and before is None:
        return False
    entries = set[tuple[Kind, bytes]]().union(*map(_hashes_of, lists))
    return before is None or before["digest"] != hashes_digest(entries)


def _hashes_of(opt_out_list: OptOutList) -> set[tuple[Kind, bytes]]:
    return {(selector.kind, selector.hash()) for selector in read_list(opt_out_list)}


def _parquet(settings: OptOutList, file: pq.ParquetFile) -> Iterator[Selector]:
    column, kind = _column(settings, file.schema_arrow.names)
    number = 1
    for batch in file.iter_batches(columns=[column]):
        values = batch.column(0).to_pylist()
        texts = [value.hex() if isinstance(value, bytes) else str(value or "") for value in values]
        yield from _selectors(settings, kind, enumerate(texts, number), "row")
        number += len(values)


def _delimited(settings: OptOutList, lines: io.TextIOWrapper, delimiter: str) -> Iterator[Selector]:
    """The entries of a CSV or TSV list. Each line is a record: a stray quote must not hide the entries after it."""
    records = (
        (number, _values(settings, number, line, delimiter))
        for number, line in enumerate(lines, 1)
        if line.strip("\r\n")
    )
    _, names = next(records, (0, []))
    column, kind = _column(settings, names)
    entries = ((number, _entry(settings, number, values, names, column)) for number, values in records)
    yield from _selectors(settings, kind, entries)


def _values(settings: OptOutList, number: int, line: str, delimiter: str) -> list[str]:
    if delimiter == "\t":
        return line.rstrip("\r\n").split("\t")  # a TSV has no quoting
    try:
        return next(csv.reader([line], strict=True), [])
    except csv.Error as error:
        raise UserError(
            f"{settings.path}, line {number}: its quotation marks are not those of a CSV record in one line ({error}). "
            'Remedy: double a mark that is part of a value (""), and write each record in one line.'
        ) from None


def _entry(settings: OptOutList, number: int, values: list[str], names: list[str], column: str) -> str:
    if not names.index(column) < len(values) <= len(names):
        raise UserError(
            f"{settings.path}, line {number}: has {len(values)} values, but {len(names)} columns have names, so its "
            f"{column} is not known. Remedy: correct the line."
        )
    return values[names.index(column)].strip('"')


def _column(settings: OptOutList, names: list[str]) -> tuple[str, Kind | None]:
    """The name of the column that holds the entries, and their kind (None: guess it from each entry)."""
    column = settings.column or next((name for name in names if name.strip().lower() in KINDS), None)
    if column is None or column not in names:
        wanted = f"column {settings.column!r}" if settings.column else f"column named {', '.join(KINDS)}"
        raise UserError(
            f"{settings.path}: there is no {wanted}; its columns are {', '.join(names)}. "
            "Remedy: name one with `column` under `optout` in corpus.yaml."
        )
    column_kind = column.strip().lower()
    return column, settings.holds or (column_kind if column_kind in KINDS else None)


def _selectors(
    settings: OptOutList, kind: Kind | None, entries: Iterator[tuple[int, str]] | enumerate[str], unit: str = "line"
) -> Iterator[Selector]:
    for number, text in entries:
        if text.strip():
            try:
                yield guess_selector(text) if kind is None else selector_of(kind, text)
            except UserError as error:
                raise UserError(f"{settings.path}, {unit} {number}: {error}") from None
