"""Leases: who works on a part or on the release, so that two builds of one workspace do not get in each other's way.

A lease is a small JSON object `leases/<name>.json`. It expires unless its holder renews it, so a holder that dies holds
nobody up for long; one that died on this machine holds nobody up at all. Changing hands is atomic: on a disk under a
file lock, on S3 by conditional writes. Work is published atomically and is the same whoever does it, so a lease that is
lost all the same (a machine that slept) costs double work and nothing else.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

from upath import UPath

from mmdata import logs
from mmdata.errors import DataError, UserError
from mmdata.publish import is_local, publish_json
from mmdata.workspace import Workspace

_log = logs.logger(__name__)

EXPIRY_S = 120.0
POLL_S = 1.0
SETTLE_S = 1.0  # after which a write to a store without conditions is read back


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
        """Whether it has expired, or is a process of this machine that has ended."""
        if datetime.fromisoformat(self.expires_at) <= now:
            return True
        return self.host == socket.gethostname() and not _lives(self.pid, self.started)


class LeaseLost(DataError):
    """Somebody else holds the lease by now."""


class Lease:
    """A lease that is held, and renewed in the background. See `leased`."""

    def __init__(self, store: Store, holder: Holder, expiry_s: float) -> None:
        self.holder = holder
        self._store, self._expiry_s = store, expiry_s
        self._ended = threading.Event()
        self._lost: str | None = None
        self._thread = threading.Thread(target=self._renew, name=f"lease {store.name}", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise LeaseLost where somebody else has taken it over."""
        if self._lost is not None:
            raise LeaseLost(f"the lease {self._store.name} is lost: {self._lost}. Remedy: run the same command again.")

    def end(self) -> None:
        """Give it back."""
        self._ended.set()
        self._thread.join()
        if self._lost is None:
            self._store.give_back(self.holder)

    def _renew(self) -> None:
        good_until = time.monotonic() + self._expiry_s
        while not self._ended.wait(self._expiry_s / 3):
            try:
                current = self._store.renew(self.holder, _later(self._expiry_s))
            except OSError as error:  # the store is away: it may come back before the lease expires
                _log.warning("lease could not be renewed yet", lease=self._store.name, error=error)
                if time.monotonic() > good_until:
                    self._lost = f"it could not be renewed ({error})"
                    return
                continue
            if current is None or current.token != self.holder.token:
                _log.error("lease is lost", lease=self._store.name, holder=current)
                self._lost = f"{current or 'somebody else'} took it over"
                return
            good_until = time.monotonic() + self._expiry_s


@contextmanager
def leased(
    workspace: Workspace,
    name: str,
    what: str,
    *,
    wait_s: float = 0.0,
    on_wait: Callable[[Holder], None] = lambda holder: None,
    expiry_s: float = EXPIRY_S,
) -> Iterator[Lease]:
    """Hold a lease of a workspace within the block.

    Args:
        name: of what is leased, such as `part-web-000000` or `release`.
        what: what is being done, for whoever has to wait.
        wait_s: seconds to wait for another holder.
        on_wait: called once with the holder that is waited for.

    Raises:
        UserError: another process holds it, and still does after `wait_s`; names it.
    """
    store = store_of(workspace, name)
    own = _own(what, expiry_s)
    began = time.monotonic()
    give_up = began + wait_s
    told = False
    while (current := store.take(own)).token != own.token:
        if time.monotonic() >= give_up:
            raise UserError(
                f"{workspace.root}: {name} is held by {current}. Remedy: wait until it has ended, or stop it; should "
                f"it be dead already, the lease frees itself at {current.expires_at}."
            )
        if not told:
            told = True
            _log.warning("waits for a lease", lease=name, holder=current, wait_s=wait_s)
            on_wait(current)
        time.sleep(min(POLL_S, expiry_s / 10))
        own = _own(what, expiry_s)
    if told:
        _log.info("has the lease", lease=name, seconds=time.monotonic() - began)
    lease = Lease(store, own, expiry_s)
    try:
        yield lease
    finally:
        lease.end()


def holder_of(workspace: Workspace, name: str) -> Holder | None:
    """Who holds a lease at this moment; None: nobody."""
    holder = _read(_path(workspace, name))
    return None if holder is None or holder.is_gone(datetime.now(UTC)) else holder


class Store(Protocol):
    """Where a lease lies. Each call is atomic."""

    name: str

    def take(self, own: Holder) -> Holder:
        """Make `own` the holder unless another one lives; the holder afterwards."""

    def renew(self, own: Holder, expires_at: str) -> Holder | None:
        """Put the expiry off if `own` still holds it; the holder afterwards."""

    def give_back(self, own: Holder) -> None:
        """Free it if `own` still holds it."""


def store_of(workspace: Workspace, name: str) -> Store:
    """The store of a lease of this name, as fits the workspace."""
    path = _path(workspace, name)
    if is_local(path):
        return _OnDisk(path, name)
    return _OnS3(path, name) if hasattr(path.fs, "call_s3") else _Settling(path, name)


class _OnDisk:
    """Changed under a lock of the operating system, which dies with its process."""

    def __init__(self, path: UPath, name: str) -> None:
        self.name = name
        self._path = path
        self._lock = Path(path.path).with_suffix(".lock")

    def take(self, own: Holder) -> Holder:
        with self._locked():
            current = _read(self._path)
            if current is not None and not current.is_gone(datetime.now(UTC)):
                return current
            publish_json(self._path, asdict(own))
            return own

    def renew(self, own: Holder, expires_at: str) -> Holder | None:
        with self._locked():
            current = _read(self._path)
            if current is not None and current.token == own.token:
                publish_json(self._path, {**asdict(own), "expires_at": expires_at})
            return current

    def give_back(self, own: Holder) -> None:
        with self._locked():
            current = _read(self._path)
            if current is not None and current.token == own.token:
                self._path.unlink(missing_ok=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._lock.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self._lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


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
        current = _read(self._path)
        if current is not None and not current.is_gone(datetime.now(UTC)):
            return current
        publish_json(self._path, asdict(own))
        time.sleep(SETTLE_S)
        return _read(self._path) or own

    def renew(self, own: Holder, expires_at: str) -> Holder | None:
        current = _read(self._path)
        if current is not None and current.token == own.token:
            publish_json(self._path, {**asdict(own), "expires_at": expires_at})
        return current

    def give_back(self, own: Holder) -> None:
        current = _read(self._path)
        if current is not None and current.token == own.token:
            with suppress(FileNotFoundError):
                self._path.unlink()


def _path(workspace: Workspace, name: str) -> UPath:
    return workspace.root / "leases" / f"{name}.json"


def _read(path: UPath) -> Holder | None:
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


def _own(what: str, expiry_s: float) -> Holder:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    pid = os.getpid()
    return Holder(secrets.token_hex(8), socket.gethostname(), pid, _started(pid), what, now, _later(expiry_s))


def _later(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def _lives(pid: int, started: int | None) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return started is None or _started(pid) in (None, started)


def _started(pid: int) -> int | None:
    """When a process started, in ticks since boot: a number given twice to processes is told apart by it."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return None


def _code(error: BaseException) -> str:
    """The error code of a store's answer, wherever the client has put it."""
    for one in (error, error.__cause__, error.__context__):
        response = getattr(one, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
    return ""
