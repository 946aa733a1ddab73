"""Logs: events with fields through the standard `logging`, as lines for people or as JSON, from every process.

A module has `_log = logs.logger(__name__)` and calls `_log.info("slice done", rows=10_000)`. `context` sets fields
(part, stage, slice, release) that every event within its block has.
"""

from __future__ import annotations

import contextvars
import json
import logging
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from mmdata.config import Observe
from mmdata.display import without_credentials
from mmdata.errors import UserError

ROOTS = ("mmdata", "pipelines")
"""Our loggers. `configure` changes no others."""

FIELDS: Mapping[str, str] = {
    "part": "the part that is worked on",
    "stage": "`rows`, `media`, `features`, `selection`, …",
    "slice": "the slice, within a part's stage",
    "release": "the release's id",
    "rows": "rows that it was about",
    "seconds": "how long it took",
    "counts": "what was counted, as in the stage's report",
    "reasons": "why rows were refused, failed or dropped, and how many",
    "reason": "one of these",
    "host": "host and port of a URL; never more of it",
    "holder": "who holds a lease that is waited for",
    "samples": "the first few that a reason was counted for: `uid`, and `host` or `row`",
    "error": "what was wrong, in one line",
}
"""Fields with the same meaning in every event; an event may have others."""

SAMPLES_PER_REASON = 3
MAX_VALUE_CHARS = 500
"""Longer values are cut off: a server decides how long its answer is."""

_LOGGING_ARGUMENTS = ("exc_info", "stack_info", "stacklevel", "extra")
_URL = re.compile(r"(://[^\s?#]*+)(?:[?#][^\s'\">)]*+)?")  # the address up to its query, and the rest
_context: contextvars.ContextVar[Mapping[str, Any]] = contextvars.ContextVar(
    "mmdata_log_context", default=MappingProxyType({})
)

FORMAT_VARIABLE, LEVEL_VARIABLE = "MMDATA_LOG", "MMDATA_LOG_LEVEL"
FORMATS, LEVELS = ("text", "json"), ("debug", "info", "warning", "error")


class Log(logging.LoggerAdapter[logging.Logger]):
    """A logger whose keyword arguments are the event's fields."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[str, MutableMapping[str, Any]]:
        event_fields = {name: kwargs.pop(name) for name in list(kwargs) if name not in _LOGGING_ARGUMENTS}
        log_fields = {
            name: clean(value) for name, value in {**_context.get(), **event_fields}.items() if value is not None
        }
        event = str(clean(str(msg)))
        kwargs["extra"] = {"event": event, "fields": log_fields}
        return line(event, log_fields), kwargs


def logger(name: str) -> Log:
    """The log of a module."""
    return Log(logging.getLogger(name), {})


@contextmanager
def context(**fields: Any) -> Iterator[None]:
    """Within the block, every event of this thread has these fields too."""
    token = _context.set({**_context.get(), **fields})
    try:
        yield
    finally:
        _context.reset(token)


def adopt(fields: Mapping[str, Any]) -> None:
    """Have every event of this process, from now on, have the fields of the process that started it."""
    _context.set(dict(fields))


def current() -> dict[str, Any]:
    """The fields that `context` has given so far."""
    return dict(_context.get())


def samples(log: Log, event: str, failures: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
    """Log one event for each reason: the number of samples, and the fields of the first few.

    Args:
        failures: (reason, fields) of each sample.
    """
    if not log.isEnabledFor(logging.INFO):
        return
    counted: Counter[str] = Counter()
    first: dict[str, list[Mapping[str, Any]]] = {}
    for reason, fields in failures:
        counted[reason] += 1
        if counted[reason] <= SAMPLES_PER_REASON:
            first.setdefault(reason, []).append(fields)
    for reason, count in sorted(counted.items()):
        log.info(event, reason=reason, rows=count, samples=first[reason])


def clean(value: Any) -> Any:
    """Make a value safe to show: remove credentials, queries of URLs and control characters, and cut long text off."""
    if isinstance(value, bool | int) or value is None:
        return value
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {str(clean(str(key))): clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    text = _URL.sub(r"\1", without_credentials(str(value)))
    text = "".join(char if char.isprintable() or char == "\n" else "\ufffd" for char in text)
    return text if len(text) <= MAX_VALUE_CHARS else f"{text[:MAX_VALUE_CHARS]}…"


def line(event: str, fields: Mapping[str, Any]) -> str:
    """An event in one line: `slice done  part=web-000000 rows=10000`."""
    texts = [f"{name}={_plain(value)}" for name, value in fields.items()]
    return f"{event}  {' '.join(texts)}" if texts else event


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ",".join(f"{name}:{item}" for name, item in value.items()) or "-"
    if isinstance(value, list):
        return ";".join(_plain(item) for item in value)
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if re.search(r'[\s"=]', text) or not text else text


class TextFormatter(logging.Formatter):
    """`12:04:05 INFO mmdata.engine.part_run: slice done  part=web-000000 …`."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        text = f"{when} {record.levelname} {record.name}: {_text(record)}".replace("\n", "\\n")
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `time` (UTC), `level`, `logger`, `event`, and the event's fields."""

    def format(self, record: logging.LogRecord) -> str:
        log_line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": getattr(record, "event", None) or clean(record.getMessage()),
        }
        log_line |= {name: value for name, value in getattr(record, "fields", {}).items() if name not in log_line}
        if record.exc_info:
            log_line["exception"] = clean(self.formatException(record.exc_info))
        return json.dumps(log_line, ensure_ascii=False, default=str)


def _text(record: logging.LogRecord) -> str:
    # the message of the record is not used: Dagster writes a prefix into it
    event = getattr(record, "event", None)
    return str(clean(record.getMessage())) if event is None else line(event, getattr(record, "fields", {}))


class _Stderr(logging.StreamHandler[Any]):
    """Looks sys.stderr up at each write, because a progress bar replaces it for a while."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        return sys.stderr


_shown_elsewhere: set[str] = set()


@contextmanager
def shown_elsewhere(*events: str) -> Iterator[None]:
    """Within the block, these events are left out of text on standard error, since a command shows them itself."""
    _shown_elsewhere.update(events)
    try:
        yield
    finally:
        _shown_elsewhere.difference_update(events)


def configure(settings: Observe | None = None) -> None:
    """Write events to standard error. The environment goes before the settings; a second call replaces the first.

    The default level is `info` for JSON, and `warning` for text, which is shown between the output of commands.

    Raises:
        UserError: MMDATA_LOG or MMDATA_LOG_LEVEL has an unknown value.
    """
    settings = settings or Observe()
    form = _environment_choice(FORMAT_VARIABLE, FORMATS) or settings.log_format
    level = _environment_choice(LEVEL_VARIABLE, LEVELS) or settings.log_level
    handler = _Stderr()
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    if form == "text":
        handler.addFilter(lambda record: getattr(record, "event", None) not in _shown_elsewhere)
    handler.setLevel((level or ("info" if form == "json" else "warning")).upper())
    for name in ROOTS:
        target = logging.getLogger(name)
        for old in [installed for installed in target.handlers if isinstance(installed, _Stderr)]:
            target.removeHandler(old)
        target.addHandler(handler)
        # never raise the level: a run of Dagster has a handler here, too
        if target.level == logging.NOTSET or target.level > handler.level:
            target.setLevel(handler.level)


def _environment_choice(variable: str, choices: Iterable[str]) -> str | None:
    choice = os.environ.get(variable, "").strip().lower() or None
    if choice is not None and choice not in choices:
        raise UserError(f"{variable} is {choice!r}. Remedy: one of {', '.join(choices)}.")
    return choice
