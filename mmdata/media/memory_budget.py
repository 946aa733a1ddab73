"""Bounds the memory that the threads of a process use together. Used by `mmdata.download.pictures`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class MemoryBudget:
    """Lets threads work on large things at a time only as far as their memory fits.

    Args:
        total_bytes: of all that is reserved at a time; what is larger is let in alone.
    """

    def __init__(self, total_bytes: int) -> None:
        self._free_bytes = self._total_bytes = total_bytes
        self._changed = threading.Condition()

    @contextmanager
    def reserved(self, needed_bytes: int) -> Iterator[None]:
        """Wait until so many bytes are free, and hold them within the block."""
        needed_bytes = min(needed_bytes, self._total_bytes)
        with self._changed:
            self._changed.wait_for(lambda: self._free_bytes >= needed_bytes)
            self._free_bytes -= needed_bytes
        try:
            yield
        finally:
            with self._changed:
                self._free_bytes += needed_bytes
                self._changed.notify_all()
