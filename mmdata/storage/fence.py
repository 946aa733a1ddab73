"""Fences: what a lease lets its holder change, held against it at the very moment of the change.

A holder that was stopped (a laptop that slept, SIGSTOP, a long pause of a virtual machine) wakes up in the middle of
its work and does not know that its lease has run out. So each change asks: mmdata.storage.atomic enters the fence of
what it is about to change. A fence belongs to the process, not to a thread: the threads of a stage write for the lease
that their process holds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass

from upath import UPath

Hold = Callable[[], AbstractContextManager[None]]
"""Enters a block in which nobody can take the lease over; raises where somebody has."""


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
    """Within the block, this process changes what lies under `roots` only within `hold()`."""
    own = _Fence(tuple(str(root) for root in roots), hold)
    with _lock:
        _fences.append(own)
    try:
        yield
    finally:
        with _lock:
            _fences.remove(own)


@contextmanager
def fenced(target: UPath) -> Iterator[None]:
    """Change `target` within the block. Raises what the fence raises; where there is none, anyone may."""
    with _lock:
        found = [one for one in _fences if one.covers(str(target))]
    with ExitStack() as stack:
        for one in found[-1:]:  # the newest: a lease that was lost and taken again by this process counts by its heir
            stack.enter_context(one.hold())
        yield
