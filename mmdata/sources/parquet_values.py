"""Turns Arrow columns of any type into text, and the columns that are kept beside into JSON objects."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import polars as pl
import pyarrow as pa

Texts = tuple[list[str | None], list[int]]
"""The values of a column as text, and the indexes of the values that were not valid UTF-8."""


def texts_of(column: pa.Array) -> Texts:
    """The values of a column as text. A value that has no text form becomes null; numbers that are NaN do, too."""
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        return texts_of(column.storage)
    if pa.types.is_dictionary(kind):
        return texts_of(column.dictionary_decode())
    if is_text(kind) or is_bytes(kind):
        return _decoded(column)
    if pa.types.is_null(kind):
        return [None] * len(column), []
    if pa.types.is_duration(kind):
        return _each(column, lambda value: str(value.total_seconds())), []
    if pa.types.is_floating(kind):
        return [None if value == "nan" else value for value in column.cast(pa.string()).to_pylist()], []
    try:
        return column.cast(pa.string()).to_pylist(), []
    except pa.ArrowException:  # such as a time zone that this machine does not know
        return _each(column, str), []


def _decoded(column: pa.Array) -> Texts:
    try:
        text = column.cast(pa.large_string())
        text.validate(full=True)
        return pl.Series(values=text).to_list(), []
    except pa.ArrowException:
        raw = column.cast(pa.large_binary()).to_pylist()
        values = [None if value is None else value.decode("utf-8", "replace") for value in raw]
        return values, [n for n, value in enumerate(values) if value is not None and value.encode() != raw[n]]


def hex_texts_of(column: pa.Array, digest_bytes: int) -> list[str | None]:
    """The digests in a column as text: in hex if it holds them as bytes, else as they are."""
    kind = column.type
    if is_bytes(kind):
        values = column.to_pylist()
        if all(value is None or len(value) == digest_bytes for value in values):
            return [None if value is None else value.hex() for value in values]
    return texts_of(column)[0]


def json_texts_of(column: pa.Array) -> Texts:
    """The values of a column as JSON, of whatever type they are; dates and bytes become null."""
    texts: list[str | None] = []
    bad: list[int] = []
    for number, value in enumerate(column):
        try:
            texts.append(json.dumps(value.as_py(), ensure_ascii=False) if value.is_valid else None)
        except UnicodeDecodeError:
            texts.append(None)
            bad.append(number)
        except (TypeError, ValueError):
            texts.append(None)
    return texts, bad


def extras_of(
    batch: pa.RecordBatch, extras: Mapping[str, str], constants: Mapping[str, str | None]
) -> list[str | None]:
    """A JSON object per row; NaN and infinities become null.

    Args:
        extras: key -> column of the batch or of `constants`, in the order of the keys in the object.
    """
    if not extras:
        return [None] * batch.num_rows
    series = {}
    for key, name in extras.items():
        if name in constants:
            series[key] = pl.repeat(constants[name], batch.num_rows, dtype=pl.String, eager=True)
        else:
            series[key] = _jsonable(batch.column(name))
    return pl.DataFrame(series).select(pl.struct(list(series)).struct.json_encode()).to_series().to_list()


def _jsonable(column: pa.Array) -> pl.Series:
    if isinstance(column.type, pa.BaseExtensionType):
        return _jsonable(column.storage)
    if _is_plain(column.type):
        try:
            column.validate(full=True)
            return pl.Series(values=column)
        except pa.ArrowInvalid:  # text that is not UTF-8
            pass
    if pa.types.is_nested(column.type):
        return pl.Series(_each(column, str), dtype=pl.String)
    return pl.Series(texts_of(column)[0], dtype=pl.String)


def _each(column: pa.Array, text: Callable[[Any], str | None]) -> list[str | None]:
    return [None if not value.is_valid else _shown(value, text) for value in column]


def _shown(value: pa.Scalar, text: Callable[[Any], str | None]) -> str | None:
    try:
        return text(value.as_py())
    except UnicodeDecodeError:
        return "text that is no UTF-8"
    except (ValueError, ArithmeticError, LookupError, pa.ArrowException):  # such as a date after the year 9999
        return None


def is_text(kind: pa.DataType) -> bool:
    """Whether the type is one of Arrow's types of text."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def is_bytes(kind: pa.DataType) -> bool:
    """Whether the type is one of Arrow's types of bytes."""
    sized = pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)
    return sized or pa.types.is_fixed_size_binary(kind)


def is_binary(kind: pa.DataType) -> bool:
    """Whether a type holds bytes at any depth, such as the struct of a picture in data sets of Hugging Face."""
    if isinstance(kind, pa.BaseExtensionType):
        return is_binary(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return is_binary(kind.value_type)
    if pa.types.is_nested(kind):
        return any(is_binary(kind.field(number).type) for number in range(kind.num_fields))
    return is_bytes(kind)


def _is_plain(kind: pa.DataType) -> bool:
    """Whether polars can write the type as JSON."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _is_plain(kind.value_type)
    if pa.types.is_struct(kind):
        return kind.num_fields > 0 and all(_is_plain(field.type) for field in kind)
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    half = pa.types.is_float16(kind)
    number = pa.types.is_integer(kind) or (pa.types.is_floating(kind) and not half)
    return text or number or pa.types.is_boolean(kind) or pa.types.is_null(kind)
