"""Events of worker processes arrive in the process that started them, even from a worker that is killed."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest

from mmdata.config import Observe
from mmdata.errors import PartFailed
from mmdata.observe import logs, relay
from tests.support.logged_work import fresh_loggers, lines, log, run  # noqa: F401 - a fixture among them


@pytest.mark.parametrize("workers", [1, 2])
def test_slices_and_what_is_said_in_them_are_told_here(
    tmp_path: Path, workers: int, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure(Observe(log_format="json"))
    with pytest.raises(PartFailed):
        run(tmp_path, workers, broken="0002")
    told = lines(capsys)
    said = [one for one in told if one["event"] == "at work"]
    assert sorted(one["slice"] for one in said) == ["0000", "0001", "0002"]
    assert all((one["part"], one["stage"]) == ("web-000000", "media") for one in told)
    assert (os.getpid() in {one["pid"] for one in said}) == (workers == 1)
    assert {one["slice"] for one in told if one["event"] == "slice done"} == {"0000", "0001"}
    (failed,) = [one for one in told if one["event"] == "slice failed"]
    assert (failed["level"], failed["slice"]) == ("error", "0002")
    assert "no space" in failed["error"]


def test_a_worker_that_is_killed_has_been_heard_and_holds_nobody_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure(Observe(log_format="json"))
    with pytest.raises(PartFailed):
        run(tmp_path, 2, killed="0001")
    told = lines(capsys)
    assert len([one for one in told if one["event"] == "at work" and one["slice"] == "0001"]) == 2  # and alone
    assert any(one["event"].startswith("a worker died") for one in told)
    assert {one["slice"] for one in told if one["event"] == "slice done"} == {"0000", "0002"}


def test_what_workers_elsewhere_say_comes_back_with_their_result(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(Observe(log_format="json"))
    levels = relay.levels()
    logging.getLogger("mmdata").handlers.clear()  # as on another machine
    with relay.gathered(levels, {"part": "web-000000"}) as events:
        log.info("at work", rows=3)
    assert capsys.readouterr().err == ""
    logs.configure(Observe(log_format="json"))
    for event in json.loads(json.dumps(events)):
        relay.tell(event)
    (told,) = lines(capsys)
    assert (told["event"], told["part"], told["rows"]) == ("at work", "web-000000", 3)
