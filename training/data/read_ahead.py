"""An iterator whose items a thread takes ahead of its reader."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from queue import Full, Queue
from threading import Event, Thread
from typing import Generic, TypeVar

Item = TypeVar("Item")
_POLL_S = 0.1  # after which a thread looks whether it is still wanted
_END_S = 10.0  # that the end of the thread is waited for; it is a daemon, and ends with the process


@dataclass(frozen=True, slots=True)
class _Taken(Generic[Item]):
    item: Item


def read_ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items. While one is worked on, one waits and the thread makes the next.

    An error of the iterator is raised where its item would come. Closing the result ends the thread, which keeps the
    iterator until its current item is there.
    """
    waiting: Queue[_Taken[Item] | BaseException] = Queue(1)
    is_closed = Event()

    def put(value: _Taken[Item] | BaseException) -> None:
        while not is_closed.is_set():
            with suppress(Full):
                waiting.put(value, timeout=_POLL_S)
                break

    def take_all() -> None:
        try:
            for item in items:
                put(_Taken(item))
                if is_closed.is_set():
                    return
            put(StopIteration())
        except BaseException as error:  # noqa: BLE001 - it is raised where the items are read
            put(error)

    thread = Thread(target=take_all, name="read ahead", daemon=True)
    thread.start()
    try:
        while True:
            value = waiting.get()
            if isinstance(value, StopIteration):
                return
            if isinstance(value, BaseException):
                raise value
            yield value.item
    finally:
        is_closed.set()
        thread.join(_END_S)
