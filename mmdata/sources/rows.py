"""The rows stage: a part of a source file becomes slices of rows, the bad ones kept with a reason."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from upath import UPath

from mmdata.config import Corpus, Source
from mmdata.engine import SliceResult, publish_slice, stamp_part
from mmdata.fingerprint import fingerprint
from mmdata.plan import rows_input, stage_settings
from mmdata.samples import ROWS, canonical_url, sample_uid, table_of
from mmdata.sources.columns import Columns, columns_of
from mmdata.sources.files import MALFORMED, Record, column_names, read_records
from mmdata.stage import Progress, StageReport, silent
from mmdata.workspace import Part, PartStamp, SliceStamp, Workspace

MAX_URL_CHARS = 4_096
MAX_CAPTION_CHARS = 20_000

_UNSEEN = re.compile(r"[\x00-\x08\x0e-\x1f\x7f\u200b\u2028\u2029\ufeff]")
_SPACES = re.compile(r"\s+")


def read_part(corpus: Corpus, workspace: Workspace, part_name: str, progress: Progress = silent) -> StageReport:
    """Read a part's rows into slices. A part that is fresh is left alone.

    Raises:
        UserError: the catalogue has no such part.
        DataError: the source file is gone, broken or lacks its columns; names it.
    """
    part = workspace.part(part_name)
    source = next(s for s in corpus.sources if s.name == part.source)
    settings = stage_settings(corpus, part, "rows")
    expected = fingerprint(settings, rows_input(part))
    stamp = workspace.part_stamp(part_name, "rows")
    if stamp is not None and stamp.fingerprint == expected and _is_whole(workspace, stamp, part_name):
        return _report(workspace, part_name, stamp, done=0)
    workspace.clear_part_stamp(part_name, "rows")
    slices: dict[str, SliceStamp] = {}
    done = 0
    for number, (records, first) in enumerate(_slices(source, part)):
        name = f"{number:04d}"
        slice_print = fingerprint(settings, rows_input(part), name)
        known = workspace.slice_stamp(part_name, "rows", name)
        if known is None or known.fingerprint != slice_print or not workspace.table(part_name, "rows", name).exists():
            columns = columns_of(source, column_names(UPath(part.path)), part.path)
            result = rows_of(records, first, columns, part)
            known = publish_slice(workspace, part_name, "rows", name, slice_print, result)
            done += 1
        slices[name] = known
        progress("rows", min(first + len(records), part.stop) - part.start, part.stop - part.start)
    stamp = stamp_part(workspace, part_name, "rows", expected, slices, None)
    return _report(workspace, part_name, stamp, done)


def rows_of(records: list[Record], first: int, columns: Columns, part: Part) -> SliceResult:
    """The table of one slice: one row a uid, identical source rows collapsed into one with `copies`.

    Args:
        records: consecutive rows of the file, `first` being the number of the first one in it.
    """
    by_uid: dict[str, dict[str, Any]] = {}
    for number, record in enumerate(records, first):
        row = _row(record, number, columns, part)
        same = by_uid.get(row["uid"])
        if same is None:
            by_uid[row["uid"]] = row
        else:
            same["copies"] += 1
    rows = list(by_uid.values())
    problems = Counter(row["problem"] for row in rows if row["problem"] is not None)
    counts = {
        "rows": len(records),
        "uids": len(rows),
        "bad": sum(problems.values()),
        "repeated": len(records) - len(rows),
    }
    return SliceResult(table_of(rows, ROWS), counts, problems)


def clean_caption(text: str) -> str:
    """A caption in one line: control and zero-width characters gone, white space folded, cut at MAX_CAPTION_CHARS."""
    return _SPACES.sub(" ", _UNSEEN.sub("", text)).strip()[:MAX_CAPTION_CHARS]


def _row(record: Record, number: int, columns: Columns, part: Part) -> dict[str, Any]:
    url, caption = record.get(columns.url), record.get(columns.caption)
    problem = _problem(record, url, caption)
    url = canonical_url(_text(url)) if url is not None and problem != "url_too_long" else None
    caption = clean_caption(_text(caption)) if caption is not None else None
    if problem is None and not caption:
        problem = "no_caption"
    if problem is None:
        uid = sample_uid(url, caption)
    else:  # nothing sound to identify it by but its place
        uid = sample_uid(f"{part.source}\x1f{part.digest}\x1f{number}", problem)
    extra = {name: value for name, value in record.items() if name not in columns.own}
    return {
        "uid": uid,
        "source": part.source,
        "part": part.name,
        "kind": "image",
        "url": url or None,
        "caption": caption or None,
        "lang": _optional(record, columns.lang),
        "expected_sha256": _sha256(_optional(record, columns.expected_sha256)),
        "problem": problem,
        "copies": 1,
        "row": number,
        "extra": _json(extra),
    }


def _problem(record: Record, url: Any, caption: Any) -> str | None:
    """Why a row cannot be used, told from its raw values."""
    if MALFORMED in record:
        return "malformed"
    if _is_missing(url):
        return "no_url"
    if not isinstance(url, str) or _has_broken_text(url):
        return "bad_url"
    if len(url) > MAX_URL_CHARS:
        return "url_too_long"
    if _is_missing(caption):
        return "no_caption"
    if not isinstance(caption, str) or _has_broken_text(caption):
        return "bad_encoding"
    return None


def _is_missing(value: Any) -> bool:
    return (
        value is None
        or (isinstance(value, float) and math.isnan(value))
        or (isinstance(value, str) and not value.strip())
    )


def _has_broken_text(value: str) -> bool:
    return any("\ud800" <= char <= "\udfff" for char in value)


def _text(value: Any) -> str:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return text.encode("utf-8", "replace").decode("utf-8")


def _optional(record: Record, column: str | None) -> str | None:
    value = record.get(column) if column is not None else None
    return _text(value) if isinstance(value, str) and value.strip() else None


def _sha256(text: str | None) -> str | None:
    text = text.strip().lower() if text else None
    return text if text and re.fullmatch(r"[0-9a-f]{64}", text) else None


def _json(extra: Record) -> str | None:
    """The source's own columns as JSON: NaN becomes null, and what JSON cannot say becomes text."""
    if not extra:
        return None
    plain = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in extra.items()
    }
    text = json.dumps(plain, ensure_ascii=False, default=_text)
    return text.encode("utf-8", "replace").decode("utf-8")


def _slices(source: Source, part: Part) -> Iterator[tuple[list[Record], int]]:
    """The part's records cut into slices, each with the number of its first row in the file."""
    waiting: list[Record] = []
    first = part.start
    for batch in read_records(UPath(part.path), part.start, part.stop):
        waiting += batch
        while len(waiting) >= source.slice_rows:
            yield waiting[: source.slice_rows], first
            first += source.slice_rows
            waiting = waiting[source.slice_rows :]
    if waiting:
        yield waiting, first


def _is_whole(workspace: Workspace, stamp: PartStamp, part_name: str) -> bool:
    return all(workspace.table(part_name, "rows", name).exists() for name in stamp.slices)


def _report(workspace: Workspace, part_name: str, stamp: PartStamp, done: int) -> StageReport:
    return StageReport(
        "rows",
        part_name,
        counts=stamp.counts,
        reasons=stamp.reasons,
        paths={"rows": str(workspace.part_dir(part_name) / "rows")},
        slices_done=done,
        slices_reused=len(stamp.slices) - done,
    )
