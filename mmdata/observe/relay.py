"""Log events of worker processes are sent to the process that started them, which has the log handlers.

Each event is one datagram on a socket in the file system. A worker that is killed holds no lock, and the events that it
sent before have arrived.
"""

from __future__ import annotations

import json
import logging
import socket
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mmdata.observe.logs import ROOTS, JsonFormatter, adopt, context, current

SEND_TIMEOUT_S = 1.0
"""A worker drops an event if the socket has no room for it within this time."""

_MAX_DATAGRAM_BYTES = 100_000


@contextmanager
def listening() -> Iterator[tuple[Any, ...]]:
    """Within the block, log the events of workers. Yields the arguments that each worker passes to `speak_to`."""
    # not in TMPDIR, which may be long: the path of a socket is limited to 107 bytes
    with tempfile.TemporaryDirectory(prefix="mmdata-", dir="/tmp") as folder:
        address = str(Path(folder) / "log")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
            receiver.bind(address)
            receiver.settimeout(0.1)
            ended = threading.Event()
            # the thread does not share the context variables, so a worker's event has only the worker's fields
            thread = threading.Thread(target=_receive_events, args=(receiver, ended), name="worker events", daemon=True)
            thread.start()
            try:
                yield address, levels(), current()
            finally:
                ended.set()
                thread.join()


def levels() -> dict[str, int]:
    """The lowest level that each of our loggers reports in this process."""
    return {name: logging.getLogger(name).getEffectiveLevel() for name in ROOTS}


def speak_to(address: str, log_levels: Mapping[str, int], fields: Mapping[str, Any]) -> None:
    """In a worker: send events to the process that listens, and give them its fields."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    connection.settimeout(SEND_TIMEOUT_S)
    connection.connect(address)
    _attach(DatagramHandler(connection), log_levels)
    adopt(fields)


@contextmanager
def gathered(log_levels: Mapping[str, int], fields: Mapping[str, Any]) -> Iterator[list[dict[str, Any]]]:
    """Within the block, events go to a list instead: for workers on other machines, which hand it back."""
    events: list[dict[str, Any]] = []
    handler = ListHandler(events)
    _attach(handler, log_levels)
    try:
        with context(**fields):
            yield events
    finally:
        for name in ROOTS:
            logging.getLogger(name).removeHandler(handler)


def tell(event: Mapping[str, Any]) -> None:
    """Give an event of another process to this one's handlers."""
    target = logging.getLogger(str(event["name"]))
    if target.isEnabledFor(int(event["levelno"])):
        target.handle(logging.makeLogRecord(dict(event)))


def _attach(handler: logging.Handler, log_levels: Mapping[str, int]) -> None:
    for name, level in log_levels.items():
        target = logging.getLogger(name)
        target.addHandler(handler)
        target.setLevel(level)


class ListHandler(logging.Handler):
    """Collects events in a list."""

    def __init__(self, events: list[dict[str, Any]]) -> None:
        super().__init__()
        self._events = events

    def emit(self, record: logging.LogRecord) -> None:
        self._events.append(_portable(record))


class DatagramHandler(logging.Handler):
    """Sends each event as one datagram."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__()
        self._socket = connection

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):  # the receiver has ended or is too slow; the work must go on
            self._socket.send(
                json.dumps(_portable(record), default=str).encode("utf-8", "replace")[:_MAX_DATAGRAM_BYTES]
            )


def _portable(record: logging.LogRecord) -> dict[str, Any]:
    """The attributes of a record that can be sent to another process, as plain values."""
    log_line = json.loads(JsonFormatter().format(record))
    fields = dict(getattr(record, "fields", {}))
    if "exception" in log_line:
        fields["exception"] = log_line["exception"]
    kept = ("name", "levelno", "levelname", "created", "process", "processName", "threadName", "pathname", "lineno")
    attributes = {name: getattr(record, name) for name in kept}
    return {**attributes, "msg": record.getMessage(), "event": log_line["event"], "fields": fields}


def _receive_events(receiver: socket.socket, ended: threading.Event) -> None:
    while True:
        is_last_round = ended.is_set()  # read before recv, so that events sent until then are still logged
        try:
            data = receiver.recv(_MAX_DATAGRAM_BYTES)
        except TimeoutError:
            if is_last_round:
                return
            continue
        with suppress(ValueError, KeyError):  # the datagram was cut off at its limit
            tell(json.loads(data))
