"""Reads JSON files that are one document instead of one object a line, in the forms that data sets have.

- an array of objects: `[{…}, {…}]`
- an object that holds one: `{"info": …, "annotations": [{…}, …]}` (RedCaps)
- an object of columns: `{"image_urls": […], "captions": […]}` (SBU), or as pandas writes it, `{"url": {"0": …}, …}`
- objects that follow one another, each over several lines, as jq prints them
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from mmdata.errors import DataError
from mmdata.sources.problems import NESTING_OF, STRING_OR_BRACKET, is_too_nested

Record = dict[str, Any]

CHUNK_BYTES = 1 << 16
MAX_ELEMENT_CHARS = 1 << 24  # of an array; columns are larger
MAX_COLUMN_CHARS = 1 << 29
ENDS = frozenset(" \t\r\n,:]}")
REMEDY = "Remedy: write one JSON object a line (jq -c '.[]' OLD > NEW.jsonl), or repair the file."


def is_document(first: str, second: str, *, named_lines: bool) -> bool:
    """Whether a JSON file is a document, judged by its first two lines that are not blank; `second` may be empty.

    Args:
        named_lines: the file's name (.jsonl, .ndjson) says that it has one object a line.
    """
    if _is_whole(first):
        return not second and not (named_lines and first.lstrip().startswith("{"))
    if first.lstrip().startswith("["):
        return True
    if not first.lstrip().startswith("{") or _is_whole(second):
        return False
    return not named_lines or first.strip() == "{"


def document_records(file: BinaryIO, path: str) -> Iterator[Record | None]:
    """The objects of a document, in order; None for an element that is not an object. Arrays are read as streams.

    Raises:
        DataError: the document breaks off, is not JSON, or has another form; names the character.
    """
    text = _Text(file, path)
    while text.next_char():
        if text.next_char() == "[":
            yield from _elements(text)
        elif text.next_char() == "{":
            yield from _records_of_object(text)
        else:
            raise text.error("an object or an array is expected")


def _elements(text: _Text) -> Iterator[Record | None]:
    text.take("[")
    while text.next_char() != "]":
        try:
            value = text.value(MAX_ELEMENT_CHARS)
        except _TooNested:
            value = None
        yield value if isinstance(value, dict) else None
        if text.next_char() != "]":
            text.take(",")
    text.take("]")


def _records_of_object(text: _Text) -> Iterator[Record | None]:
    """The records of an array of objects inside the object, else of its columns, else the object itself."""
    members: Record = {}
    has_records, is_nested = False, False
    text.take("{")
    while text.next_char() != "}":
        name = text.value(MAX_ELEMENT_CHARS)
        text.take(":")
        if text.begins_array_of_objects():
            if has_records:
                raise text.error("it has several arrays of objects, and which of them are the rows is not known")
            has_records = True
            yield from _elements(text)
        else:
            try:
                members[str(name)] = text.value(MAX_COLUMN_CHARS)
            except _TooNested:
                is_nested = True
        if text.next_char() != "}":
            text.take(",")
    text.take("}")
    if has_records:
        return
    columns = _columns(members)
    if is_nested and columns is not None:
        raise text.error("one of its columns is nested too deeply")
    if columns is None or is_nested:
        yield None if is_nested else members
    else:
        for values in zip(*columns.values(), strict=True):
            yield dict(zip(columns, values, strict=True))


def _columns(members: Record) -> dict[str, list[Any]] | None:
    """The columns of an object whose values are lists of one length, or objects with the same keys; else None."""
    values = list(members.values())
    if values and all(isinstance(value, list) for value in values):
        columns = members
    elif values and all(isinstance(value, dict) and value.keys() == values[0].keys() for value in values):
        columns = {name: list(value.values()) for name, value in members.items()}
    else:
        return None
    return columns if len({len(column) for column in columns.values()}) == 1 else None


class _TooNested(Exception):
    """A value is nested deeper than a row may be; it has been taken."""


class _Text:
    """The text of a file, of which only what is being parsed is in memory."""

    def __init__(self, file: BinaryIO, path: str) -> None:
        self._file, self._path = file, path
        self._decode = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape").decode
        self._parse = json.JSONDecoder(parse_constant=lambda _: None).raw_decode  # NaN is read as null
        self._buffer, self._at, self._dropped, self._ended = "", 0, 0, False

    def next_char(self) -> str:
        """The next character that is not white space, which is not taken; empty at the end."""
        while True:
            while self._at < len(self._buffer) and self._buffer[self._at] in " \t\r\n":
                self._at += 1
            if self._at < len(self._buffer):
                return self._buffer[self._at]
            if not self._grow(CHUNK_BYTES):
                return ""

    def take(self, char: str) -> None:
        if self.next_char() != char:
            raise self.error(f"{char} is expected")
        self._at += 1

    def value(self, max_chars: int) -> Any:
        """The next value, which may not be longer than `max_chars`. Raises `_TooNested` when it has taken the value."""
        self.next_char()
        while True:
            waiting = len(self._buffer) - self._at
            try:
                value, end = self._parse(self._buffer, self._at)
                if self._buffer[end : end + 1] not in ENDS and not self._ended:
                    raise ValueError("a number may go on")
            except RecursionError:
                value, end = None, self._end_of_nested(max_chars)
            except ValueError as error:
                # Twice as much text for each try: the time to parse a long value stays linear.
                if waiting > max_chars or self._ended:
                    raise self.error(getattr(error, "msg", str(error))) from None
                self._grow(max(CHUNK_BYTES, waiting))
                continue
            is_nested = is_too_nested(self._buffer[self._at : end])
            self._at = end
            if is_nested:
                raise _TooNested
            return value

    def _end_of_nested(self, max_chars: int) -> int:
        """Where a value ends that is nested too deeply for the parser."""
        while True:
            depth = 0
            for token in STRING_OR_BRACKET.finditer(self._buffer, self._at):
                depth += NESTING_OF.get(token[0], 0)
                if depth == 0:
                    return token.end()
            waiting = len(self._buffer) - self._at
            if waiting > max_chars or not self._grow(max(CHUNK_BYTES, waiting)):
                raise self.error("it is nested too deeply, and does not end")

    def begins_array_of_objects(self) -> bool:
        """Whether the next value is an array whose first element is an object. Nothing is taken."""
        is_array = self.next_char() == "["
        while is_array:
            rest = self._buffer[self._at + 1 :].lstrip(" \t\r\n")
            if rest or not self._grow(CHUNK_BYTES):
                return rest.startswith("{")
        return False

    def error(self, problem: str) -> DataError:
        place = self._dropped + self._at
        return DataError(f"{self._path}: cannot be read as JSON (character {place:,}: {problem}). {REMEDY}")

    def _grow(self, size: int) -> bool:
        """Read more text, and drop what has been parsed; False at the end of the file."""
        data = self._file.read(size)
        self._ended = not data
        self._dropped += self._at
        self._buffer, self._at = self._buffer[self._at :] + self._decode(data, final=self._ended), 0
        return bool(data)


def _is_whole(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True
