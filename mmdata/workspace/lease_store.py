"""How a lease is stored and changes hands: under a file lock on a disk, by conditional writes on S3."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from filelock import FileLock
from upath import UPath

from mmdata.errors import DataError
from mmdata.storage.atomic import is_local, publish_json, withdraw
from mmdata.workspace.layout import Workspace

LOCK_TIMEOUT_S = 5.0
"""Changes take milliseconds, so a process that holds the file lock for longer has been stopped."""

SETTLE_S = 1.0
"""Seconds after which a write to a store without conditional writes is read back."""

unreleased_tokens: set[str] = set()
"""Tokens of leases that this process no longer needs but could not release, so that it does not wait for itself."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lease.

    Args:
        token: a random name of this holding.
        started: when the holder's process started, in ticks since boot; None if the system does not say.
        what: the work, in words for people.
        since, expires_at: UTC ISO times.
    """

    token: str
    host: str
    pid: int
    started: int | None
    what: str
    since: str
    expires_at: str

    def __str__(self) -> str:
        return f"{self.what}, process {self.pid} on {self.host}, since {self.since}"

    def is_gone(self, now: datetime) -> bool:
        """Whether the lease has expired, this process no longer needs it, or its process on this machine has ended."""
        if datetime.fromisoformat(self.expires_at) <= now or self.token in unreleased_tokens:
            return True
        return self.host == socket.gethostname() and not is_alive(self.pid, self.started)


class Store(Protocol):
    """The storage of one lease. Each call is atomic."""

    name: str

    def take(self, own: Holder) -> Holder:
        """Make `own` the holder unless another holder is alive. Returns the holder afterwards."""

    def renew(self, own: Holder, expires_at: str) -> Holder | None:
        """Extend the lease if `own` still holds it. Returns the holder before the call."""

    def held(self, own: Holder) -> AbstractContextManager[Holder | None]:
        """Open a block and yield the holder at its beginning; a disk lets nobody take the lease inside the block."""

    def give_back(self, own: Holder) -> None:
        """Release the lease if `own` still holds it."""


def store_of(workspace: Workspace, name: str) -> Store:
    """The storage of a lease: a disk, S3, or a store without conditional writes."""
    path = lease_path(workspace, name)
    if is_local(path):
        return _OnDisk(path, name)
    return _OnS3(path, name) if hasattr(path.fs, "call_s3") else _Settling(path, name)


class _OnDisk:
    """A file that is changed under a lock of the operating system, which ends with its process."""

    def __init__(self, path: UPath, name: str) -> None:
        self.name = name
        self._path = path
        self._lock_path = Path(path.path).with_suffix(".lock")
        self._shared = self._locked(thread_local=False)
        self._guard = threading.Lock()

    def take(self, own: Holder) -> Holder:
        try:
            with self._locked():
                current = read_holder(self._path)
                if current is not None and not current.is_gone(datetime.now(UTC)):
                    return current
                publish_json(self._path, asdict(own))
                return own
        except TimeoutError:  # the holder was stopped in the middle of a change, and must not be overtaken
            return read_holder(self._path) or replace(own, token="", what="a stopped process", pid=0)

    def renew(self, own: Holder, expires_at: str) -> Holder | None:
        with self._locked():
            current = read_holder(self._path)
            if current is not None and current.token == own.token:
                publish_json(self._path, {**asdict(own), "expires_at": expires_at})
            return current

    def give_back(self, own: Holder) -> None:
        with self._locked():
            current = read_holder(self._path)
            if current is not None and current.token == own.token:
                withdraw(self._path)

    @contextmanager
    def held(self, own: Holder) -> Iterator[Holder | None]:
        with self._guard:  # the threads of the holder share one file lock, which counts them
            self._shared.acquire()
        try:
            yield read_holder(self._path)
        finally:
            with self._guard:
                self._shared.release()

    def _locked(self, *, thread_local: bool = True) -> FileLock:
        """The file lock; entering it raises TimeoutError if it is not free within `LOCK_TIMEOUT_S`."""
        self._lock_path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(self._lock_path, timeout=LOCK_TIMEOUT_S, poll_interval=0.005, thread_local=thread_local)


class _OnS3:
    """An object that is changed by conditional writes: S3 refuses them if the object has changed since it was read."""

    def __init__(self, path: UPath, name: str) -> None:
        self.name = name
        self._path = path
        self._bucket, _, self._key = path.path.partition("/")

    def take(self, own: Holder) -> Holder:
        current, etag = self._read()
        if current is not None and not current.is_gone(datetime.now(UTC)):
            return current
        return own if self._write(own, etag) else (self._read()[0] or current or own)

    def renew(self, own: Holder, expires_at: str) -> Holder | None:
        current, etag = self._read()
        if current is not None and current.token == own.token:
            self._write(Holder(**{**asdict(own), "expires_at": expires_at}), etag)
        return current

    @contextmanager
    def held(self, own: Holder) -> Iterator[Holder | None]:
        yield self._read()[0]

    def give_back(self, own: Holder) -> None:
        """Write the lease as expired; S3 has no conditional deletion."""
        current, etag = self._read()
        if current is not None and current.token == own.token:
            self._write(Holder(**{**asdict(own), "expires_at": own.since}), etag)

    def _read(self) -> tuple[Holder | None, str | None]:
        from fsspec.asyn import sync as sync_call

        try:
            answer = self._path.fs.call_s3("get_object", Bucket=self._bucket, Key=self._key)
        except FileNotFoundError:
            return None, None
        except Exception as error:
            if _code(error) in ("NoSuchKey", "404"):
                return None, None
            raise
        body = sync_call(self._path.fs.loop, answer["Body"].read)  # of the same answer as the ETag
        return _holder(body, self._path), answer["ETag"]

    def _write(self, holder: Holder, etag: str | None) -> bool:
        """Write unless the object has changed since it was read. Returns whether it was written."""
        condition = {"IfNoneMatch": "*"} if etag is None else {"IfMatch": etag}
        body = json.dumps(asdict(holder), sort_keys=True).encode()
        try:
            self._path.fs.call_s3("put_object", Bucket=self._bucket, Key=self._key, Body=body, **condition)
        except Exception as error:
            if _code(error) in ("PreconditionFailed", "ConditionalRequestConflict", "412", "409"):
                return False
            raise
        finally:
            self._path.fs.invalidate_cache(self._path.path)
        return True


class _Settling:
    """For stores without conditional writes: write, wait, and read back; the last writer holds the lease."""

    def __init__(self, path: UPath, name: str) -> None:
        self.name = name
        self._path = path

    def take(self, own: Holder) -> Holder:
        current = read_holder(self._path)
        if current is not None and not current.is_gone(datetime.now(UTC)):
            return current
        publish_json(self._path, asdict(own))
        time.sleep(SETTLE_S)
        return read_holder(self._path) or own

    def renew(self, own: Holder, expires_at: str) -> Holder | None:
        current = read_holder(self._path)
        if current is not None and current.token == own.token:
            publish_json(self._path, {**asdict(own), "expires_at": expires_at})
        return current

    @contextmanager
    def held(self, own: Holder) -> Iterator[Holder | None]:
        yield read_holder(self._path)

    def give_back(self, own: Holder) -> None:
        current = read_holder(self._path)
        if current is not None and current.token == own.token:
            withdraw(self._path)


def lease_path(workspace: Workspace, name: str) -> UPath:
    """The path of a lease."""
    return workspace.root / "leases" / f"{name}.json"


def read_holder(path: UPath) -> Holder | None:
    """The holder in the file; None without a file. Raises DataError if the file is not a lease."""
    try:
        # In one request: opening a file asks for its size first, and the object may change before it is read.
        return _holder(path.read_bytes() if is_local(path) else path.fs.cat_file(path.path), path)
    except FileNotFoundError:
        return None


def _holder(data: bytes, path: UPath) -> Holder:
    try:
        return Holder(**json.loads(data))
    except (ValueError, TypeError):
        raise DataError(f"{path}: not a lease. Remedy: delete it.") from None


def is_alive(pid: int, ticks: int | None = None) -> bool:
    """Whether a process of this machine lives. `ticks`, if given, must be its start, as `start_of_process` reads it."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    if _stat(pid)[:1] == ["Z"]:  # a zombie: in containers PID 1 often does not reap orphans
        return False
    return ticks is None or start_of_process(pid) in (None, ticks)


def start_of_process(pid: int) -> int | None:
    """When a process started, in ticks since boot: it tells apart two processes that had the same number."""
    try:
        return int(_stat(pid)[19])
    except (IndexError, ValueError):
        return None


def _stat(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat from the state on; empty on systems without /proc."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _code(error: BaseException) -> str:
    """The error code in a store's answer, which clients put into the error, its cause or its context."""
    for link in (error, error.__cause__, error.__context__):
        response = getattr(link, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
    return ""
