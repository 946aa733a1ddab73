"""Logs: fields, what is kept out of them, the two forms, and worker processes."""

from __future__ import annotations

import logging

import pytest

from mmdata.config import Observe
from mmdata.errors import UserError
from mmdata.observe import logs
from mmdata.web.failures import FetchError
from mmdata.web.hosts import HostHealth, fetch_all
from tests.support.logged_work import fresh_loggers, lines, log, run  # noqa: F401 - a fixture among them


def test_json_has_the_event_its_fields_and_their_context(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(Observe(log_format="json"))
    with logs.context(part="web-000001", stage="media"), logs.context(slice="0003"):
        log.info("slice done", rows=12, reasons={"http_404": 3}, share=1 / 3)
    log.info("outside")
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
    log.info("not shown")
    with logs.context(part="web-000001"):
        log.warning("disk\nis full", where="a b")
    told = capsys.readouterr().err
    assert told.endswith('WARNING mmdata.tests: disk\\nis full  part=web-000001 where="a b"\n')
    assert told.count("\n") == 1
    logs.configure(Observe(log_level="info"))
    log.info("shown")
    assert "shown" in capsys.readouterr().err


def test_the_environment_goes_over_the_corpus(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMDATA_LOG", "json")
    monkeypatch.setenv("MMDATA_LOG_LEVEL", "debug")
    logs.configure(Observe(log_format="text", log_level="error"))
    log.debug("seen")
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
    log.warning(f"cannot fetch {told}", error=OSError(told), reasons={told: 1})
    try:
        raise OSError(told)
    except OSError:
        log.error("it ended", exc_info=True)
    logging.getLogger("mmdata.yt_dlp").warning("its own: %s", told)
    text = capsys.readouterr().err
    assert text.count("\n") == 3
    assert "hush" not in text


def test_text_of_a_server_moves_no_cursor_and_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure()
    log.warning("\x1b[2Jgone", host="evil\x1b]0;title\x07", error="x" * 10_000)
    told = capsys.readouterr().err
    assert "\x1b" not in told
    assert "\x07" not in told
    assert len(told) < 1_000


def test_the_first_samples_of_a_reason_are_named_and_the_rest_counted(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(Observe(log_format="json"))
    logs.samples(log, "no media", [("http_404", {"uid": str(n)}) for n in range(10)] + [("dns", {"uid": "x"})])
    told = lines(capsys)
    assert [(one["reason"], one["rows"]) for one in told] == [("dns", 1), ("http_404", 10)]
    assert [one["uid"] for one in told[1]["samples"]] == ["0", "1", "2"]


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

    log.info("not heard", value=Costly())
    logs.samples(log, "not heard", (asked.append(1) or ("reason", {}) for _ in range(3)))  # type: ignore[func-returns-value]
    assert asked == []
