"""Events of worker processes, told again by the process that started them, where the handlers are.

Each event is one datagram on a socket in the file system: a worker that is killed takes no lock with it, and what it
had said before has arrived.
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

PATIENCE_S = 1.0  # that a worker waits for room in the socket before it drops an event
_LARGEST = 100_000


@contextmanager
def listening() -> Iterator[tuple[Any, ...]]:
    """Within the block, tell what workers say. Gives the arguments that each worker calls `speak_to` with."""
    # not in TMPDIR where that is long: a socket's path has 107 bytes
    with tempfile.TemporaryDirectory(prefix="mmdata-", dir="/tmp") as folder:
        address = str(Path(folder) / "log")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
            heard.bind(address)
            heard.settimeout(0.1)
            ended = threading.Event()
            # a copy: where a worker's event is told, it has the worker's own fields and no others
            thread = threading.Thread(target=_hear, args=(heard, ended), name="worker events", daemon=True)
            thread.start()
            try:
                yield address, levels(), current()
            finally:
                ended.set()
                thread.join()


def levels() -> dict[str, int]:
    """From which level on our loggers are heard in this process."""
    return {name: logging.getLogger(name).getEffectiveLevel() for name in ROOTS}


def speak_to(address: str, heard_from: Mapping[str, int], fields: Mapping[str, Any]) -> None:
    """In a worker: send events to the process that listens, and give them its fields."""
    mouth = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    mouth.settimeout(PATIENCE_S)
    mouth.connect(address)
    _attach(_Mouth(mouth), heard_from)
    adopt(fields)


@contextmanager
def gathered(heard_from: Mapping[str, int], fields: Mapping[str, Any]) -> Iterator[list[dict[str, Any]]]:
    """Within the block, events go to a list instead: for workers on other machines, which hand it back."""
    found: list[dict[str, Any]] = []
    handler = _Listed(found)
    _attach(handler, heard_from)
    try:
        with context(**fields):
            yield found
    finally:
        for name in ROOTS:
            logging.getLogger(name).removeHandler(handler)


def tell(told: Mapping[str, Any]) -> None:
    """Give an event of another process to this one's handlers."""
    own = logging.getLogger(str(told["name"]))
    if own.isEnabledFor(int(told["levelno"])):
        own.handle(logging.makeLogRecord(dict(told)))


def _attach(handler: logging.Handler, heard_from: Mapping[str, int]) -> None:
    for name, level in heard_from.items():
        own = logging.getLogger(name)
        own.addHandler(handler)
        own.setLevel(level)


class _Listed(logging.Handler):
    def __init__(self, found: list[dict[str, Any]]) -> None:
        super().__init__()
        self._found = found

    def emit(self, record: logging.LogRecord) -> None:
        self._found.append(_portable(record))


class _Mouth(logging.Handler):
    def __init__(self, mouth: socket.socket) -> None:
        super().__init__()
        self._mouth = mouth

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):  # nobody listens any more, or not fast enough: work goes on
            self._mouth.send(json.dumps(_portable(record), default=str).encode("utf-8", "replace")[:_LARGEST])


def _portable(record: logging.LogRecord) -> dict[str, Any]:
    """What of a record can leave its process: plain values."""
    told = json.loads(JsonFormatter().format(record))
    fields = dict(getattr(record, "fields", {}))
    if "exception" in told:
        fields["exception"] = told["exception"]
    kept = ("name", "levelno", "levelname", "created", "process", "processName", "threadName", "pathname", "lineno")
    own = {name: getattr(record, name) for name in kept}
    return {**own, "msg": record.getMessage(), "event": told["event"], "fields": fields}


def _hear(heard: socket.socket, ended: threading.Event) -> None:
    while True:
        over = ended.is_set()  # asked before: what came until then is still told
        try:
            data = heard.recv(_LARGEST)
        except TimeoutError:
            if over:
                return
            continue
        with suppress(ValueError, KeyError):  # one that was cut short
            tell(json.loads(data))
