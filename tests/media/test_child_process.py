"""A child process that stays, is replaced when it has died, and is killed when it takes too long."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mmdata.media.child_process import ChildProcess


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChildProcess]:
    monkeypatch.chdir(Path(__file__).parents[2])
    process = ChildProcess("tests.support.echo_process")
    yield process
    process.close()
    assert process.pid is None


def answer(process: ChildProcess, request: dict[str, Any], timeout_s: float = 20) -> dict[str, Any] | None:
    with process.answers(request, timeout_s) as stream:
        line = stream.readline()
    return json.loads(line) if line else None


def test_one_process_answers_request_after_request(process: ChildProcess) -> None:
    assert answer(process, {"text": "über"}) == {"text": "über"}
    first = process.pid
    assert answer(process, {"number": 2}) == {"number": 2}
    assert process.pid == first


def test_a_process_that_ends_is_replaced_at_the_next_request(process: ChildProcess) -> None:
    assert answer(process, {"end": True}) is None
    assert not process.timed_out
    process.close()
    assert answer(process, {"number": 3}) == {"number": 3}


def test_a_process_that_takes_too_long_is_killed(process: ChildProcess) -> None:
    assert answer(process, {"number": 1}) == {"number": 1}
    assert answer(process, {"sleep_s": 30}, timeout_s=0.2) is None
    assert process.timed_out
    process.close()
    assert answer(process, {"number": 4}) == {"number": 4}
    assert not process.timed_out
