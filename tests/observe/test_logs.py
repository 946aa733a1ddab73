"""Logs: fields, what is kept out of them, the two forms, and worker processes."""

from __future__ import annotations

import json
import logging
import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mmdata.config import Engine, Observe
from mmdata.engine.part_run import SliceResult, run_part_stage
from mmdata.errors import PartFailed, UserError
from mmdata.observe import logs, relay
from mmdata.web.failures import FetchError
from mmdata.web.hosts import HostHealth, fetch_all
from mmdata.workspace.layout import Workspace

_log = logs.logger("mmdata.tests")


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Loggers belong to the process: a test begins with ours untouched, and what it changes is put back."""
    for variable in (logs.FORMAT_VARIABLE, logs.LEVEL_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    own = [logging.getLogger(name) for name in logs.ROOTS]
    before = [(list(one.handlers), one.level) for one in own]
    for one in own:
        one.handlers, one.level = [], logging.NOTSET
        one.manager._clear_cache()  # type: ignore[attr-defined] # as setLevel does
    yield
    for one, (handlers, level) in zip(own, before, strict=True):
        one.handlers, one.level = handlers, level
        one.manager._clear_cache()  # type: ignore[attr-defined] # as setLevel does


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(one) for one in capsys.readouterr().err.splitlines()]


def work(name: str, broken: str = "", killed: str = "") -> SliceResult:
    """A slice's work that says where it runs."""
    _log.info("at work", pid=os.getpid())
    if name == broken:
        raise OSError("no space")
    if name == killed:
        os.kill(os.getpid(), signal.SIGKILL)
    return SliceResult(pa.table({"uid": [name * 8]}), counts={"rows": 1, "usable": 1}, numbers={"seconds": 0.5})


def run(folder: Path, workers: int, **how: str) -> None:
    run_part_stage(
        Workspace(str(folder)),
        "web-000000",
        "media",
        settings="s",
        inputs={"0000": "a", "0001": "b", "0002": "c"},
        upstream="u",
        work=partial(work, **how),
        engine=Engine(workers=workers),
    )


def test_json_has_the_event_its_fields_and_their_context(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(Observe(log_format="json"))
    with logs.context(part="web-000001", stage="media"), logs.context(slice="0003"):
        _log.info("slice done", rows=12, reasons={"http_404": 3}, share=1 / 3)
    _log.info("outside")
    first, second = lines(capsys)
    assert first.pop("time").endswith("+00:00")
    assert first == {
        "level": "info",
        "logger": "mmdata.tests",
        "event": "slice done",
        "part": "web-000001",
        "stage": "media",
        "slice": "0003",
        "rows": 12,
        "reasons": {"http_404": 3},
        "share": 0.333333,
    }
    assert "part" not in second


def test_text_is_one_line_and_shows_warnings_only_unless_told(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure()
    _log.info("not shown")
    with logs.context(part="web-000001"):
        _log.warning("disk\nis full", where="a b")
    told = capsys.readouterr().err
    assert told.endswith('WARNING mmdata.tests: disk\\nis full  part=web-000001 where="a b"\n')
    assert told.count("\n") == 1
    logs.configure(Observe(log_level="info"))
    _log.info("shown")
    assert "shown" in capsys.readouterr().err


def test_the_environment_goes_over_the_corpus(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMDATA_LOG", "json")
    monkeypatch.setenv("MMDATA_LOG_LEVEL", "debug")
    logs.configure(Observe(log_format="text", log_level="error"))
    _log.debug("seen")
    assert [one["event"] for one in lines(capsys)] == ["seen"]
    monkeypatch.setenv("MMDATA_LOG", "xml")
    with pytest.raises(UserError, match=r"MMDATA_LOG is 'xml'.*text, json"):
        logs.configure()


@pytest.mark.parametrize(
    "told",
    [
        "https://user:hush@example.org/a.jpg?token=hush&x=hush",
        "HTTP 403 for https://example.org/a?sig=hush: refused",
        "https://example.org/a#hush",
        "s3://key:hush@bucket/a",
        "(see http://example.org/x?caption=hush)",
    ],
)
def test_no_query_and_no_password_of_a_url_is_told(told: str, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(Observe(log_format="json"))
    _log.warning(f"cannot fetch {told}", error=OSError(told), reasons={told: 1})
    try:
        raise OSError(told)
    except OSError:
        _log.error("it ended", exc_info=True)
    logging.getLogger("mmdata.yt_dlp").warning("its own: %s", told)
    text = capsys.readouterr().err
    assert text.count("\n") == 3
    assert "hush" not in text


def test_text_of_a_server_moves_no_cursor_and_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure()
    _log.warning("\x1b[2Jgone", host="evil\x1b]0;title\x07", error="x" * 10_000)
    told = capsys.readouterr().err
    assert "\x1b" not in told
    assert "\x07" not in told
    assert len(told) < 1_000


def test_the_first_samples_of_a_reason_are_named_and_the_rest_counted(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(Observe(log_format="json"))
    logs.samples(_log, "no media", [("http_404", {"uid": str(n)}) for n in range(10)] + [("dns", {"uid": "x"})])
    told = lines(capsys)
    assert [(one["reason"], one["rows"]) for one in told] == [("dns", 1), ("http_404", 10)]
    assert [one["uid"] for one in told[1]["samples"]] == ["0", "1", "2"]


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
        _log.info("at work", rows=3)
    assert capsys.readouterr().err == ""
    logs.configure(Observe(log_format="json"))
    for event in json.loads(json.dumps(events)):
        relay.tell(event)
    (told,) = lines(capsys)
    assert (told["event"], told["part"], told["rows"]) == ("at work", "web-000000", 3)


def test_fetching_threads_know_what_they_fetch_for_and_a_host_that_is_down_is_told_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure(Observe(log_format="json"))
    health = HostHealth(2)
    urls = [f"http://user:hush@down.example:8080/{n}?hush" for n in range(6)]
    with logs.context(part="web-000000", slice="0001"):
        list(fetch_all(urls, lambda url: health.record(url, FetchError("timeout", "")), threads=2, per_host=2))
    (told,) = lines(capsys)
    assert (told["event"], told["host"]) == ("host is down; the slice leaves it alone", "down.example:8080")
    assert (told["part"], told["slice"], told["level"]) == ("web-000000", "0001", "warning")


def test_a_log_that_nobody_reads_costs_next_to_nothing() -> None:
    logs.configure(Observe(log_level="error"))
    asked = []

    class Costly:
        def __str__(self) -> str:
            asked.append(1)
            return ""

    _log.info("not heard", value=Costly())
    logs.samples(_log, "not heard", (asked.append(1) or ("reason", {}) for _ in range(3)))  # type: ignore[func-returns-value]
    assert asked == []
