"""The patterns that find a source's files, and what the paths of the files say: a relative name, and columns."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import takewhile
from urllib.parse import unquote

from upath import UPath

from mmdata.config import Source

HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"

_RANGE = re.compile(r"([0-9]+)\.\.([0-9]+)")
_BRACES = re.compile(r"\{([^{},]*+,[^{}]*+|[0-9]+\.\.[0-9]+)\}")
_HIVE_FOLDER = re.compile(r"([A-Za-z_][A-Za-z0-9_.-]*)=([^=]*)")


def expanded(patterns: Iterable[str]) -> Iterator[str]:
    """The patterns without braces: `{a,b}` and `{00..31}` become one pattern for each of these, as in a shell."""
    for pattern in patterns:
        match = _BRACES.search(pattern)
        if match is None:
            yield pattern
            continue
        before, after = pattern[: match.start()], pattern[match.end() :]
        yield from expanded(before + choice + after for choice in _choices(match[1]))


def _choices(text: str) -> list[str]:
    if (numbers := _RANGE.fullmatch(text)) is None:
        return text.split(",")
    digits = len(numbers[1])
    return [f"{number:0{digits}}" for number in range(int(numbers[1]), int(numbers[2]) + 1)]


def relative_name(source: Source, path: str) -> str:
    """The path of a file relative to the folder that the patterns of the source begin with."""
    roots = [_root(pattern) for pattern in source.patterns]
    levels = takewhile(lambda names: len(set(names)) == 1, zip(*(root.split("/") for root in roots), strict=False))
    root = "/".join(names[0] for names in levels).rstrip("/") + "/"
    whole = UPath(path).path
    return whole.removeprefix(root) if whole.startswith(root) else whole.rpartition("/")[2]


def _root(pattern: str) -> str:
    fixed = pattern[: min((pattern.find(sign) for sign in "*?[{" if sign in pattern), default=None)]
    return UPath(fixed.rpartition("/")[0] + "/").path.rstrip("/") + "/"


def folder_columns(path: str) -> dict[str, str | None]:
    """The columns that Hive folders give to a file: `…/year=2024/lang=en/a.parquet` has `year` and `lang`.

    Only the folders right above the file count. `%20` and the like are decoded, and Hive's name for null is null.
    """
    columns: dict[str, str | None] = {}
    for folder in reversed(path.split("/")[:-1]):
        match = _HIVE_FOLDER.fullmatch(folder)
        if match is None:
            break
        columns.setdefault(match[1], None if match[2] == HIVE_NULL else unquote(match[2]))
    return dict(reversed(columns.items()))
