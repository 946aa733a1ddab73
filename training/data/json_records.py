"""The records of a JSON list or of a JSONL file, one after the other, with the place of each in the file."""

from __future__ import annotations

import json
import mmap
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmdata.errors import DataError

_HEAD_BYTES = 1 << 12  # of which the first that is no white space tells a list
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_STRING_OR_BRACKET = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)
_NESTING = {b"{": 1, b"[": 1, b"}": -1, b"]": -1}
REMEDY = "Remedy: a JSON list of objects, or one object a line (jq -c '.[]' OLD > NEW.jsonl)."


@dataclass(frozen=True, slots=True)
class JsonRecord:
    """A record and its place."""

    line: int  # of its first byte, from 1
    offset: int  # of its first byte, from 0
    length: int  # in bytes
    value: Any  # parsed; None if it is not JSON
    problem: str | None = None  # why it is not JSON


def json_records(path: Path) -> Iterator[JsonRecord]:
    """The records of a file in order. Only the current one is in memory.

    A file that begins with `[` is a JSON list of objects; any other has one object a line. A line that is not JSON is
    a record with a problem. A list is JSON from its first bracket to its last, or it is refused: after a lost quote
    nobody knows where a record ends.

    Raises DataError: the file is empty, or is a broken list; names the line.
    """
    with path.open("rb") as file:
        start = len(_BYTE_ORDER_MARK) if file.read(len(_BYTE_ORDER_MARK)) == _BYTE_ORDER_MARK else 0
        file.seek(start)
        while (head := file.read(_HEAD_BYTES)) and not head.strip():
            pass
        if not head:
            raise DataError(f"{path}: holds no records. {REMEDY}")
        file.seek(start)
        if head.lstrip().startswith(b"["):
            yield from _list_elements(path, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), start)
            return
        offset = start
        for number, line in enumerate(file, 1):
            if line.strip():
                yield parsed_record(number, offset, line)
            offset += len(line)


def parsed_record(line: int, offset: int, data: bytes) -> JsonRecord:
    """A record that lies at a place of a file. Args: line: from 1; offset: in bytes."""
    try:
        return JsonRecord(line, offset, len(data), json.loads(data))
    except (ValueError, RecursionError) as error:
        return JsonRecord(line, offset, len(data), None, f"not JSON: {error}")


def _list_elements(path: Path, text: mmap.mmap, start: int) -> Iterator[JsonRecord]:
    line, depth, begin, end = 1, 0, start, start

    def broken(at: int, problem: str) -> DataError:
        number = line + text[end:at].count(b"\n")
        return DataError(f"{path}: line {number}: not a JSON list ({problem}). {REMEDY}")

    for token in _STRING_OR_BRACKET.finditer(text, start):
        before, depth = depth, depth + _NESTING.get(token[0], 0)
        if before == 1 and token[0] == b"{":
            begin = token.start()
            if text[end:begin].strip() not in (b",", b"["):
                raise broken(begin, "no comma between two records")
            line += text[end:begin].count(b"\n")
        elif before == 1 and token[0] != b"]":
            raise broken(token.start(), "an element that is no object")
        elif depth == 1 and token[0] == b"}":
            end = token.end()
            record = parsed_record(line, begin, text[begin:end])
            if record.problem is not None:
                raise broken(end, record.problem)
            yield record
            line += text[begin:end].count(b"\n")
        elif depth == 0:
            if (rest := text[token.end() :].strip()) or text[end : token.start()].strip() not in (b"", b"["):
                raise broken(token.start(), "something after its end" if rest else "a trailing comma or value")
            return
    if begin > end:  # a quotation mark may be missing far before the end of the file; `line` is that of `begin`
        raise broken(end, "the record that begins here does not end")
    raise broken(len(text), "it breaks off")
