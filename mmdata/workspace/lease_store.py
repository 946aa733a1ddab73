"""Where a lease lies, and how it changes hands: under a file lock on a disk, by conditional writes on S3."""

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

LOCK_PATIENCE_S = 5.0  # changes take milliseconds: a file lock that is held longer is held by a process that is stopped
SETTLE_S = 1.0  # after which a write to a store without conditions is read back

given_up: set[str] = set()
"""Tokens of leases that this process is done with and could not give back: it need not wait for itself."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lease.

    Args:
        token: tells this holding from any other.
        started: when the holder's process started, in ticks since boot; None where that cannot be told.
        what: what it does, for people.
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
        """Whether it has expired, has been given up here, or is a process of this machine that has ended."""
        if datetime.fromisoformat(self.expires_at) <= now or self.token in given_up:
            return True
        return self.host == socket.gethostname() and not _lives(self.pid, self.started)


class Store(Protocol):
    """Where a lease lies. Each call is atomic."""

    name: str

    def take(self, own: Holder) -> Holder:
        """Make `own` the holder unless another one lives; the holder afterwards."""

    def renew(self, own: Holder, expires_at: str) -> Holder | None:
        """Put the expiry off if `own` still holds it; the holder afterwards."""

    def held(self, own: Holder) -> AbstractContextManager[Holder | None]:
        """A block with the holder at its beginning; within it, as far as the store can, nobody takes it from `own`."""

    def give_back(self, own: Holder) -> None:
        """Free it if `own` still holds it."""


def store_of(workspace: Workspace, name: str) -> Store:
    """The store of a lease of this name, as fits the workspace."""
    path = lease_path(workspace, name)
    if is_local(path):
        return _OnDisk(path, name)
    return _OnS3(path, name) if hasattr(path.fs, "call_s3") else _Settling(path, name)


class _OnDisk:
    """Changed under a lock of the operating system, which dies with its process."""

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
        except TimeoutError:  # its holder is stopped in the middle of a change, and must not be overtaken
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
        with self._guard:  # the holder's threads make their changes side by side, under one lock that counts them
            self._shared.acquire()
        try:
            yield read_holder(self._path)
        finally:
            with self._guard:
                self._shared.release()

    def _locked(self, *, thread_local: bool = True) -> FileLock:
        """A lock to enter; that raises TimeoutError if it is not free within `LOCK_PATIENCE_S`."""
        self._lock_path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(self._lock_path, timeout=LOCK_PATIENCE_S, poll_interval=0.005, thread_local=thread_local)


class _OnS3:
    """Changed by conditional writes: the store refuses one whose object is another by now."""

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
        """Written as expired, not deleted: a deletion cannot be made to depend on what is deleted."""
        current, etag = self._read()
        if current is not None and current.token == own.token:
            self._write(Holder(**{**asdict(own), "expires_at": own.since}), etag)

    def _read(self) -> tuple[Holder | None, str | None]:
        from fsspec.asyn import sync as sync_call

        try:
            found = self._path.fs.call_s3("get_object", Bucket=self._bucket, Key=self._key)
        except FileNotFoundError:
            return None, None
        except Exception as error:
            if _code(error) in ("NoSuchKey", "404"):
                return None, None
            raise
        body = sync_call(self._path.fs.loop, found["Body"].read)  # of the very answer that has the ETag
        return _holder(body, self._path), found["ETag"]

    def _write(self, holder: Holder, etag: str | None) -> bool:
        """Whether it was written: it is not where the object has changed since it was read."""
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
    """For stores without conditions: written, and read back after a while; the last writer has it."""

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
    """Where the lease of a name lies."""
    return workspace.root / "leases" / f"{name}.json"


def read_holder(path: UPath) -> Holder | None:
    """Who is written down; None: nobody. Raises DataError where the file is no lease."""
    try:
        # in one request: a file that is opened is looked up and then read, and may be another by then
        return _holder(path.read_bytes() if is_local(path) else path.fs.cat_file(path.path), path)
    except FileNotFoundError:
        return None


def _holder(data: bytes, path: UPath) -> Holder:
    try:
        return Holder(**json.loads(data))
    except (ValueError, TypeError):
        raise DataError(f"{path}: is no lease. Remedy: delete it.") from None


def _lives(pid: int, ticks: int | None) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    if _stat(pid)[:1] == ["Z"]:  # killed, and nobody has asked how it ended: common where PID 1 reaps no orphans
        return False
    return ticks is None or started(pid) in (None, ticks)


def started(pid: int) -> int | None:
    """When a process started, in ticks since boot: a number given twice to processes is told apart by it."""
    try:
        return int(_stat(pid)[19])
    except (IndexError, ValueError):
        return None


def _stat(pid: int) -> list[str]:
    """What Linux tells of a process, from its state on; empty elsewhere."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _code(error: BaseException) -> str:
    """The error code of a store's answer, wherever the client has put it."""
    for one in (error, error.__cause__, error.__context__):
        response = getattr(one, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
    return ""
