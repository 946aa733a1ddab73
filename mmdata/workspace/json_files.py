"""Reads the JSON files of a workspace: those that a build can write again, and those that it cannot."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

from upath import UPath

from mmdata.errors import DataError
from mmdata.observe import logs

_log = logs.logger(__name__)

T = TypeVar("T")

DELETE_IT = "Remedy: delete it, then `mmdata build`, which writes it again."

MALFORMED = (KeyError, TypeError, ValueError, AttributeError)
"""What making a record raises if the JSON is valid, but is not what was written."""


def read_json(path: UPath, remedy: str = DELETE_IT) -> dict[str, Any] | None:
    """Read a JSON object; None if there is no such file. Raises DataError, naming the file, if it is not valid JSON."""
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not valid JSON ({error}). {remedy}") from None
    if not isinstance(data, dict):
        raise DataError(f"{path}: expected a JSON object, found {type(data).__name__}. {remedy}")
    return data


def read_derived(path: UPath, make: Callable[[dict[str, Any]], T]) -> T | None:
    """The record in a JSON file that a build can write again; None if there is no such file, or it is damaged."""
    try:
        data = read_json(path)
        return None if data is None else make(data)
    except (DataError, *MALFORMED) as error:
        _log.warning("a damaged file counts as missing", file=str(path), error=str(error) or type(error).__name__)
        return None
