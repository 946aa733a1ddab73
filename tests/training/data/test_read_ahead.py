"""A thread takes items ahead: so far and no further, with their errors, until it is no longer wanted."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event
from threading import enumerate as threads

import pytest

from training.data.read_ahead import read_ahead


def names() -> list[str]:
    return [thread.name for thread in threads() if thread.name == "read ahead"]


def test_items_keep_their_order_and_end() -> None:
    assert list(read_ahead(iter(range(100)))) == list(range(100))
    assert names() == []


def test_one_item_waits_while_the_next_is_made() -> None:
    made, third = [], Event()

    def items() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            if number == 2:
                third.set()
            yield number

    ahead = read_ahead(items())
    assert next(ahead) == 0
    assert third.wait(10), "1 waits, 2 is made"
    assert len(made) == 3, "and 3 is not: there is no room for 2"
    ahead.close()
    assert names() == []


def test_an_error_comes_in_the_place_of_its_item() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    ahead = read_ahead(items())
    assert next(ahead) == 1
    with pytest.raises(ValueError, match="broken"):
        next(ahead)
    assert names() == []
