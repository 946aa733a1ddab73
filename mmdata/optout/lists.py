"""Lists of what is to be left out: plain text or a table in, selectors out; the standing ones kept as hashes."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from mmdata.config import OptOutList
from mmdata.display import without_credentials
from mmdata.errors import UserError
from mmdata.optout.hashes import hashes_digest, read_hashes, write_hashes
from mmdata.optout.selectors import KINDS, Kind, Selector, guess, selector
from mmdata.optout.state import standing_path, standing_table
from mmdata.storage.atomic import publish_json, withdraw
from mmdata.workspace.layout import Workspace, read_json

TABLES = {".csv": ",", ".tsv": "\t"}
PARQUET = frozenset({".parquet", ".pq"})


def read_list(asked: OptOutList) -> Iterator[Selector]:
    """The entries of a list. In plain text a line that begins with # is a comment; empty lines and nulls are none.

    Raises:
        UserError: the list cannot be read, lacks the column, or an entry is none; names file and line.
    """
    path = UPath(asked.path)
    suffix = path.suffix.lower()
    try:
        with path.open("rb") as file:
            if suffix in PARQUET:
                yield from _parquet(asked, pq.ParquetFile(file))
                return
            lines = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
            if suffix in TABLES:
                yield from _delimited(asked, lines, TABLES[suffix])
            else:
                entries = ((number, line.strip()) for number, line in enumerate(lines, 1))
                yield from _selectors(asked, asked.holds, (e for e in entries if not e[1].startswith("#")))
    except (OSError, ValueError, csv.Error, pa.ArrowException) as error:
        raise UserError(
            f"{asked.path}: the opt-out list cannot be read ({type(error).__name__}: {error}). Nothing is built "
            "without it. Remedy: restore the file, or correct `optout` in corpus.yaml."
        ) from None


def update_standing(lists: list[OptOutList], workspace: Workspace) -> dict[str, int]:
    """Read the standing lists and keep their entries as hashes; the number of entries by kind.

    A workspace that never had a list is left as it is.

    Raises:
        UserError: a list cannot be read; what was kept of them stays.
    """
    path = standing_path(workspace)
    before = read_json(path)
    if not lists and before is None:
        return {}
    entries: set[tuple[Kind, bytes]] = set()
    told = []
    for one in lists:
        mine = {(found.kind, found.hash()) for found in read_list(one)}
        entries |= mine
        told.append({"path": without_credentials(one.path), "entries": len(mine), "digest": hashes_digest(mine)})
    digest = hashes_digest(entries)
    taken_out = int((before or {}).get("taken_out", 0))
    if before and before["digest"] != digest:
        known = read_hashes(standing_table(workspace, before["digest"]), before["digest"])
        taken_out += not entries.issuperset(known)
    now = {"lists": told, "digest": digest, "taken_out": taken_out}
    if now != before:
        write_hashes(standing_table(workspace, digest), entries)
        publish_json(path, now)
        _remove_others(path.parent, {digest, (before or {}).get("digest")})
    return {kind: sum(one == kind for one, _ in entries) for kind in KINDS}


def lists_changed(lists: list[OptOutList], workspace: Workspace) -> bool:
    """Whether the lists hold other entries than the workspace keeps of them.

    Raises:
        UserError: a list cannot be read.
    """
    before = read_json(standing_path(workspace))
    if not lists and before is None:
        return False
    entries = {(found.kind, found.hash()) for one in lists for found in read_list(one)}
    return before is None or before["digest"] != hashes_digest(entries)


def _remove_others(folder: UPath, kept: set[str | None]) -> None:
    """All but this state and the one before, which a build may have begun to read."""
    tables = folder.glob("standing-*.parquet")
    withdraw(*[table for table in tables if table.stem.removeprefix("standing-") not in kept])


def _parquet(asked: OptOutList, file: pq.ParquetFile) -> Iterator[Selector]:
    column, kind = _column(asked, file.schema_arrow.names)
    number = 1
    for batch in file.iter_batches(columns=[column]):
        values = batch.column(0).to_pylist()
        texts = [value.hex() if isinstance(value, bytes) else str(value or "") for value in values]
        yield from _selectors(asked, kind, enumerate(texts, number), "row")
        number += len(values)


def _delimited(asked: OptOutList, lines: io.TextIOWrapper, delimiter: str) -> Iterator[Selector]:
    reader = csv.DictReader(lines, delimiter=delimiter)
    column, kind = _column(asked, list(reader.fieldnames or []))
    rows: Iterator[Mapping[str, Any]] = iter(reader)
    yield from _selectors(asked, kind, ((reader.line_num, str(row.get(column) or "")) for row in rows))


def _column(asked: OptOutList, names: list[str]) -> tuple[str, Kind | None]:
    """The column with the entries, and what they are."""
    found = asked.column or next((name for name in names if name.strip().lower() in KINDS), None)
    if found is None or found not in names:
        wanted = f"column {asked.column!r}" if asked.column else f"column named {', '.join(KINDS)}"
        raise UserError(
            f"{asked.path}: there is no {wanted}; its columns are {', '.join(names)}. "
            "Remedy: name one with `column` under `optout` in corpus.yaml."
        )
    named = found.strip().lower()
    return found, asked.holds or (named if named in KINDS else None)


def _selectors(
    asked: OptOutList, kind: Kind | None, entries: Iterator[tuple[int, str]] | enumerate[str], what: str = "line"
) -> Iterator[Selector]:
    for number, text in entries:
        if text.strip():
            try:
                yield guess(text) if kind is None else selector(kind, text)
            except UserError as error:
                raise UserError(f"{asked.path}, {what} {number}: {error}") from None
