"""Joint metrics of many short processes, such as Dagster's runs, by prometheus_client's multiprocess mode.

Each process counts in the files of a slot. A slot that is free again goes to the next process, which continues its
counters, so there are never more files than there were processes at once.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

from filelock import FileLock
from upath import UPath

from mmdata.config import Observe
from mmdata.observe import logs, metrics
from mmdata.storage.atomic import publish_bytes

FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable in which prometheus_client expects the folder."""

_log = logs.logger(__name__)
_locked_slots: list[FileLock] = []


@contextmanager
def gathered(settings: Observe, folder: Path) -> Iterator[dict[str, str]]:
    """Expose, inside the block, what all processes count that have the yielded variables in their environment.

    Args:
        folder: for the files of the processes. It is emptied first, so that the counters begin at zero.
    """
    if settings.metrics_port is None and settings.metrics_textfile is None:
        yield {}
        return
    try:
        from prometheus_client import CollectorRegistry, generate_latest, start_http_server
        from prometheus_client.multiprocess import MultiProcessCollector
    except ImportError:
        _log.warning(metrics.ABSENT)
        yield {}
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(folder))
    server = None
    if settings.metrics_port is not None:
        try:
            server, _ = start_http_server(settings.metrics_port, addr=metrics.LOOPBACK, registry=registry)
        except OSError as error:
            _log.warning("metrics have no port", port=settings.metrics_port, error=error)
    ended = Event()

    def write() -> None:
        while settings.metrics_textfile is not None:
            try:
                publish_bytes(UPath(settings.metrics_textfile), generate_latest(registry))
            except OSError as error:
                _log.warning("metrics could not be written", path=settings.metrics_textfile, error=error)
            if ended.wait(metrics.WRITE_EVERY_S):
                return

    Thread(target=write, name="metrics", daemon=True).start()
    try:
        yield {FOLDER_VARIABLE: str(folder)}
    finally:
        ended.set()
        if server is not None:
            server.shutdown()
            server.server_close()


def join() -> None:
    """Count in this process, if another process gathers the metrics."""
    folder = os.environ.get(FOLDER_VARIABLE)
    if not folder or metrics.is_counting() or not Path(folder).is_dir():
        return
    try:
        from prometheus_client import values
    except ImportError:
        return
    slot, owner = _slot(Path(folder)), os.getpid()
    # after a fork use our own pid, or we write to the parent's metric files
    values.ValueClass = values.MultiProcessValue(lambda: slot if os.getpid() == owner else os.getpid())
    metrics.count()


def _slot(folder: Path) -> str:
    """Reserve a name that no running process has, until this process ends."""
    number = 0
    while True:
        lock = FileLock(folder / f"{number}.lock", blocking=False)
        try:
            lock.acquire()
        except TimeoutError:
            number += 1
            continue
        _locked_slots.append(lock)
        return f"slot{number}"
