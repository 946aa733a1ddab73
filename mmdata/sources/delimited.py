"""Splits the lines of CSV and TSV files into records, and gives back the lines that a stray quote has swallowed.

A TSV has no quoting: one line is one row. A CSV follows RFC 4180: a quoted value may contain line ends. Many CSV files
of the web are written without regard to quotes, and there a quote that opens a value and is never closed would take
the rows after it into one caption. `records` says when a record of several lines is believed.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator

from mmdata.sources.lines import MAX_LINE_BYTES, Lines

csv.field_size_limit(MAX_LINE_BYTES)  # by default a text of 131,072 characters is an error

_URL_AS_VALUE = re.compile(r'^"?https?://[^\s,"]*"?,|,"?https?://', re.IGNORECASE | re.MULTILINE)
_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?")

_OPEN = "unexpected end of data"  # csv's words for a quote that is not closed at the end of its input


def header_of(lines: Lines, *, tabs: bool) -> list[str]:
    """The column names in the first line that is not blank; empty if there is none."""
    for line in lines:
        if values := _plain_values(line, tabs=tabs) if tabs else _lenient_values(line):
            return values
    return []


def records(lines: Lines, header: list[str], *, tabs: bool) -> Iterator[list[str] | None]:
    """The values of each record, as many as `header` has; None for a malformed record. Blank lines are none.

    A CSV record of several lines is believed if its quotes follow RFC 4180, it has as many values as the header, and
    it does not look like rows that a stray quote has joined (see `_has_swallowed_rows`). Otherwise its first line is
    malformed, and the lines after it are read as records of their own.

    Args:
        header: names as in the file. If a TSV quotes all of them, the quotes around its values are removed, too.
    """
    if tabs:
        unquotes = bool(header) and all(_is_quoted(name) for name in header)
        for line in lines:
            if values := _plain_values(line, tabs=True):
                yield _of_width([_unquoted(value) for value in values] if unquotes else values, len(header))
        return
    for line in lines:
        if '"' not in line:
            if values := _plain_values(line, tabs=False):
                yield _of_width(values, len(header))
        else:
            yield _quoted_record(line, lines, len(header))


def _quoted_record(line: str, lines: Lines, width: int) -> list[str] | None:
    try:
        values = next(csv.reader([line], strict=True))
    except csv.Error as error:
        if _OPEN in str(error):
            return _record_of_lines(line, lines, width)
        plain = _plain_values(line, tabs=False)  # quotes that are part of the text: "Big" house, 5" nails
        return plain if len(plain) == width else _of_width(_lenient_values(line), width)
    return _of_width(values, width)


def _record_of_lines(line: str, lines: Lines, width: int) -> list[str] | None:
    """The record that begins in a line with an open quote; None if it is malformed. Its other lines are then put back.

    The search for the closing quote is linear: a further line with an open quote closes this one or breaks its rules.
    """
    taken: list[tuple[str, int]] = []

    def continued() -> Iterator[str]:
        yield line
        size = 0
        while size < MAX_LINE_BYTES:
            try:
                taken.append(lines.take())
            except StopIteration:
                return
            size += taken[-1][1]
            yield taken[-1][0]

    try:
        values = next(csv.reader(continued(), strict=True))
    except csv.Error:
        values = []
    if len(values) == width and not _has_swallowed_rows(values, [line, *(text for text, _ in taken)]):
        return values
    lines.put_back(taken)
    return None


def _has_swallowed_rows(values: list[str], raw_lines: list[str]) -> bool:
    """Whether a record of several lines looks like several rows that a stray quote has joined.

    It does if a value of several lines contains a URL where a row would have one (`…,http://…` or `http://…,…`), or if
    each of its lines is a row of the same form: as many values, with numbers and URLs in the same places.
    """
    joined = [value for value in values if "\n" in value]
    if any(_URL_AS_VALUE.search(value) for value in joined):
        return True
    forms = {tuple(map(_form, _plain_values(line, tabs=False))) for line in raw_lines}
    form = next(iter(forms))
    return len(forms) == 1 and len(form) == len(values) and any(form)


def _form(value: str) -> str:
    value = value.strip().strip('"')
    if _NUMBER.fullmatch(value):
        return "number"
    return "url" if value.lower().startswith(("http://", "https://")) else ""


def _plain_values(line: str, *, tabs: bool) -> list[str]:
    """The values between delimiters, with their quotes; empty if the line is blank."""
    line = line.rstrip("\r\n")
    return line.split("\t" if tabs else ",") if line else []


def _lenient_values(line: str) -> list[str]:
    """The values of a line whose quotes break the rules; empty if a quote is still open at its end."""
    try:
        values = next(csv.reader([line.rstrip("\r\n") + "\n"]), [])
    except csv.Error:
        return []
    return [] if values and values[-1].endswith("\n") else values


def _of_width(values: list[str], width: int) -> list[str] | None:
    return values if len(values) == width else None


def _is_quoted(value: str) -> bool:
    return len(value) > 1 and value[0] == value[-1] == '"'


def _unquoted(value: str) -> str:
    return value[1:-1].replace('""', '"') if _is_quoted(value) else value
