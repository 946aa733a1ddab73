"""Fences: a process changes what a lease covers only while it really holds the lease.

A holder that was stopped (a laptop that slept, SIGSTOP, a paused virtual machine) wakes up in the middle of its work
and does not know that its lease has run out. So mmdata.storage.atomic enters the fence of a path at the moment of each
change. A fence belongs to the process, not to a thread, because the threads of a stage write under one lease.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass

from upath import UPath

Hold = Callable[[], AbstractContextManager[None]]
"""Opens a block in which nobody can take the lease over; raises if somebody already has."""


@dataclass(frozen=True, slots=True, eq=False)
class _Fence:
    roots: tuple[str, ...]
    hold: Hold

    def covers(self, target: str) -> bool:
        return any(target == root or target.startswith(f"{root}/") for root in self.roots)


_lock = threading.Lock()
_fences: list[_Fence] = []


@contextmanager
def fence(roots: tuple[UPath, ...], hold: Hold) -> Iterator[None]:
    """Inside the block, this process changes anything under `roots` only inside `hold()`."""
    new = _Fence(tuple(str(root) for root in roots), hold)
    with _lock:
        _fences.append(new)
    try:
        yield
    finally:
        with _lock:
            _fences.remove(new)


@contextmanager
def fenced(target: UPath) -> Iterator[None]:
    """Open a block in which `target` may be changed.

    Raises:
        LeaseLost: the lease that covers the target is lost. Without a fence over the target, anybody may change it.
    """
    with _lock:
        covering = [fence for fence in _fences if fence.covers(str(target))]
    with ExitStack() as stack:
        if covering:  # the newest counts: this process may have lost a lease and taken it again
            stack.enter_context(covering[-1].hold())
        yield
