"""Leases: who works on a part or on the release, so that two builds of one workspace do not get in each other's way.

A lease is a small JSON object `leases/<name>.json`. It expires unless its holder renews it, so a holder that dies holds
nobody up for long; one that died on this machine holds nobody up at all.

A holder that was stopped and wakes up after its lease has run out changes nothing any more: each change is made within
`Lease.hold`, which the fence of mmdata.storage.atomic enters. On a disk that keeps the lease from changing hands while
the change is made. On an object store it looks just before; what is left is a request that is on its way at that
moment.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from upath import UPath

from mmdata.errors import DataError, UserError
from mmdata.observe import logs, metrics
from mmdata.storage.fence import fence
from mmdata.workspace.layout import Workspace
from mmdata.workspace.lease_store import Holder, Store, given_up, lease_path, read_holder, started, store_of

_log = logs.logger(__name__)

EXPIRY_S = 120.0
POLL_S = 1.0


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

    @contextmanager
    def hold(self) -> Iterator[None]:
        """A block in which something is changed for this lease.

        Raises:
            LeaseLost: somebody else has taken it over, or it is gone.
            OSError: the store cannot be asked.
        """
        with self._store.held(self.holder) as current:
            if current is None or current.token != self.holder.token:
                self._lost = f"{current or 'somebody else'} took it over"
                self.check()
            yield

    def end(self) -> None:
        """Give it back; where the store is away, it runs out by itself."""
        self._ended.set()
        self._thread.join()
        if self._lost is None:
            try:
                self._store.give_back(self.holder)
            except Exception as error:  # noqa: BLE001 - in whichever words; the work is done, and must not fail for this
                given_up.add(self.holder.token)
                _log.warning("lease could not be given back", lease=self._store.name, error=error)

    def _renew(self) -> None:
        good_until = time.monotonic() + self._expiry_s
        while not self._ended.wait(self._expiry_s / 3):
            try:
                current = self._store.renew(self.holder, _later(self._expiry_s))
            except Exception as error:  # noqa: BLE001 - the store is away, in whichever words: it may come back in time
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
        metrics.waited(time.monotonic() - began)
        _log.info("has the lease", lease=name, seconds=time.monotonic() - began)
    lease = Lease(store, own, expiry_s)
    try:
        with fence(_covered(workspace, name), lease.hold):
            yield lease
    finally:
        lease.end()


def holder_of(workspace: Workspace, name: str) -> Holder | None:
    """Who holds a lease at this moment; None: nobody."""
    holder = read_holder(lease_path(workspace, name))
    return None if holder is None or holder.is_gone(datetime.now(UTC)) else holder


def _covered(workspace: Workspace, name: str) -> tuple[UPath, ...]:
    """What only the holder of a lease changes."""
    if name == "release":
        return (workspace.catalog_path, workspace.draft_path, workspace.shards_dir, workspace.releases_dir)
    kind, _, part = name.partition("-")
    return (workspace.part_dir(part),) if kind == "part" else ()


def _own(what: str, expiry_s: float) -> Holder:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    pid = os.getpid()
    return Holder(secrets.token_hex(8), socket.gethostname(), pid, started(pid), what, now, _later(expiry_s))


def _later(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()
