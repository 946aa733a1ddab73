"""Decides which rows of a source its filter lets in, from the rows table alone: nothing is fetched for it."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import polars as pl

from mmdata.config.source_filter import HEIGHTS, WIDTHS, SourceFilter, Value
from mmdata.samples import count_words, own_columns, source_score
from mmdata.sources.id_list import read_id_list

RULE = "rule:"
"""Begins the reason of a row that its source's filter does not let in; the name of the rule follows."""

_OF_ROWS = {
    "lang": "lang",
    "language": "lang",
    "caption": "caption",
    "text": "caption",
    "url": "url",
    "sha256": "expected_sha256",
}
"""Column of a source, in lower case -> column of the rows table that holds it."""

MISSING = None


def is_rule(error: str | None) -> bool:
    """Whether an error class of a media table is the verdict of a source's filter."""
    return error is not None and error.startswith(RULE)


def rule_reasons(rows: Sequence[Mapping[str, Any]], rules: SourceFilter | None) -> dict[str, str]:
    """uid -> the first rule that does not let the row in, as `rule:<name>`; without the rows that are let in.

    The names are those of the keys, with a column where a key has some: `min.similarity`, `languages`, `min_side`. A
    verdict depends on the row and the rules only.

    Args:
        rows: of a rows table: uid, caption, lang, url, expected_sha256, extra.

    Raises:
        UserError: a list of ids cannot be read.
    """
    if rules is None or not rows:
        return {}
    reasons: dict[str, str] = {}
    for name, fails in _Judge(rows, rules).verdicts():
        for row, row_fails in zip(rows, fails, strict=True):
            if row_fails:
                reasons.setdefault(row["uid"], RULE + name)
    return reasons


Verdict = tuple[str, Sequence[bool]]
"""The name of a rule, and which rows fail it."""


class _Judge:
    """Judges N rows by the rules that are set."""

    def __init__(self, rows: Sequence[Mapping[str, Any]], rules: SourceFilter) -> None:
        self._rows, self._rules = rows, rules
        self._extras = [own_columns(row["extra"]) for row in rows]

    def verdicts(self) -> Iterator[Verdict]:
        rules = self._rules
        yield from self._by_ids()
        for column, least in rules.min.items():
            yield f"min.{column}", self._fails(self._numbers(column), partial(operator.gt, least))
        for column, most in rules.max.items():
            yield f"max.{column}", self._fails(self._numbers(column), partial(operator.lt, most))
        for column, allowed in rules.one_of.items():
            yield f"one_of.{column}", self._fails(self._values(column), _is_none_of(allowed))
        if rules.languages is not None:
            yield "languages", self._fails(self._values("lang"), _is_none_of(rules.languages))
        yield from self._by_sizes()
        yield from self._by_scores_and_captions()

    def _by_ids(self) -> Iterator[Verdict]:
        rules = self._rules
        ids = self._values(rules.id_column) if rules.keep_ids or rules.drop_ids else []
        for key, path in (("keep_ids", rules.keep_ids), ("drop_ids", rules.drop_ids)):
            if path is not None:
                is_listed = read_id_list(path, rules.id_column).contains("" if i is MISSING else i for i in ids)
                is_wanted = key == "keep_ids"
                pairs = zip(ids, is_listed, strict=True)
                yield key, self._fails((MISSING if i is MISSING else listed == is_wanted for i, listed in pairs), _no)

    def _by_sizes(self) -> Iterator[Verdict]:
        least, most = self._rules.min_side, self._rules.max_aspect
        if least is None and most is None:
            return
        sizes = [_sides(*size) for size in zip(self._values(*WIDTHS), self._values(*HEIGHTS), strict=True)]
        if least is not None:
            yield "min_side", self._fails(sizes, lambda sides: min(sides) < least)
        if most is not None:
            yield "max_aspect", self._fails(sizes, lambda sides: max(sides) > most * min(sides))

    def _by_scores_and_captions(self) -> Iterator[Verdict]:
        rules = self._rules
        columns = {name: [row[name] for row in self._rows] for name in ("extra", "caption")}
        frame = pl.DataFrame(columns, schema={"extra": pl.String, "caption": pl.String})
        for score, bound in (("punsafe", rules.max_punsafe), ("pwatermark", rules.max_pwatermark)):
            if bound is not None:
                scores = frame.select(source_score(score)).to_series().to_list()
                yield f"max_{score}", self._fails(scores, partial(operator.lt, bound))
        if rules.min_words is not None:
            words = frame.select(count_words(pl.col("caption").fill_null(""))).to_series()
            yield "min_words", (words < rules.min_words).to_list()
        if rules.min_chars is not None:
            chars = frame.select(pl.col("caption").fill_null("").str.len_chars()).to_series()
            yield "min_chars", (chars < rules.min_chars).to_list()

    def _values(self, *names: str) -> list[Any]:
        return [_value(row, extra, names) for row, extra in zip(self._rows, self._extras, strict=True)]

    def _numbers(self, column: str) -> list[float | None]:
        return [_number(value) for value in self._values(column)]

    def _fails(self, values: Iterable[Any], is_bad: Callable[[Any], bool]) -> list[bool]:
        if_missing = self._rules.missing == "drop"
        return [if_missing if value is MISSING else bool(is_bad(value)) for value in values]


def _no(is_let_in: bool) -> bool:
    return not is_let_in


def _is_none_of(allowed: Iterable[Value]) -> Callable[[Any], bool]:
    texts = {str(value).casefold() for value in allowed}
    return lambda value: str(value).casefold() not in texts


def _value(row: Mapping[str, Any], extra: Mapping[str, Any], names: Sequence[str]) -> Any:
    """The first value of a row under one of the names, by exact name or else without regard to case; None: none."""
    for name in names:
        value = extra.get(name)
        if value is None:
            folded = name.strip().casefold()
            value = next((v for key, v in extra.items() if key.strip().casefold() == folded), None)
            if value is None and folded in _OF_ROWS:
                value = row[_OF_ROWS[folded]]
        if value is not None and not (isinstance(value, float) and math.isnan(value)) and value != "":
            return value
    return MISSING


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return MISSING
    return MISSING if math.isnan(number) else number


def _sides(width: Any, height: Any) -> tuple[float, float] | None:
    wide, high = _number(width), _number(height)
    return MISSING if wide is None or high is None or min(wide, high) <= 0 else (wide, high)
