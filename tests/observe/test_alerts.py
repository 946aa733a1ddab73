"""What an alert says, and how it is delivered."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from mmdata.config import Alerts
from mmdata.config.load import parse_corpus
from mmdata.observe import alerts
from mmdata.observe.alerts import Happening, NotDelivered, deliver, message
from mmdata.releases.manifest import public_config

SECRET = "T0P-53CR3T"


class Receiver:
    """A webhook on loopback: keeps what it is sent, answers as it is told."""

    def __init__(self) -> None:
        self.received: list[dict[str, Any]] = []
        self.answers: list[int] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = outer.answers.pop(0) if outer.answers else 200
                if status == 200:
                    outer.received.append(json.loads(body))
                self.send_response(status)
                self.send_header("Location", outer.url + "/elsewhere")
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/{SECRET}"


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    made = Receiver()
    threading.Thread(target=made.server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HOOK", made.url)
    monkeypatch.setattr(alerts.time, "sleep", lambda _: None)
    yield made
    made.server.shutdown()


HOOK = Alerts(webhook_env="HOOK")


def test_a_try_that_fails_is_made_again(receiver: Receiver) -> None:
    receiver.answers = [500, 503]
    deliver(HOOK, "webhook", {"text": "it burns"})
    assert receiver.received == [{"text": "it burns"}]


def test_three_failures_are_told_without_the_secret(receiver: Receiver) -> None:
    receiver.answers = [500, 500, 500]
    with pytest.raises(NotDelivered, match="answered 500") as raised:
        deliver(HOOK, "webhook", {"text": "it burns"})
    assert SECRET not in str(raised.value)
    assert raised.value.__cause__ is None


@pytest.mark.parametrize("url", [f"ftp://x/{SECRET}", f"http://127.0.0.1:1/{SECRET}", f"http://[{SECRET}", ""])
def test_a_webhook_that_cannot_be_is_told_without_the_secret(
    url: str, monkeypatch: pytest.MonkeyPatch, receiver: Receiver
) -> None:
    monkeypatch.setenv("HOOK", url)
    with pytest.raises(NotDelivered) as raised:
        deliver(HOOK, "webhook", {})
    assert SECRET not in str(raised.value)


def test_a_redirect_takes_nothing_elsewhere(receiver: Receiver) -> None:
    receiver.answers = [302, 302, 302]
    with pytest.raises(NotDelivered, match="302"):
        deliver(HOOK, "webhook", {"text": "it burns"})
    assert receiver.received == []


def test_url_in_a_file(receiver: Receiver, tmp_path: Path) -> None:
    (tmp_path / "hook").write_text(receiver.url + "\n")
    deliver(Alerts(webhook_file=str(tmp_path / "hook")), "webhook", {"text": "it burns"})
    assert len(receiver.received) == 1


def test_command_gets_the_alert_on_standard_input(tmp_path: Path) -> None:
    deliver(Alerts(command=f"cat > {tmp_path}/told"), "command", {"text": "$(touch x)"})
    assert json.loads((tmp_path / "told").read_text()) == {"text": "$(touch x)"}


@pytest.mark.parametrize(("command", "why"), [("exit 3", "code 3"), ("sleep 9", "took over")])
def test_command_that_fails(command: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts, "MAX_ATTEMPTS", 1)
    with pytest.raises(NotDelivered, match=why):
        deliver(Alerts(command=command, timeout_s=0.2), "command", {})


def test_a_storm_is_one_message() -> None:
    storm = [
        Happening("run_failure", f"run:build_part:{n}", "build_part failed", "build_part", "0", f"web-{n}")
        for n in range(5000)
    ]
    body = message(storm, "web", "https://dagster.example/")
    assert body["count"] == 5000
    assert len(body["text"].splitlines()) == 12
    assert "and 4,990 more" in body["text"]
    assert "https://dagster.example/runs/0" in body["text"]


def test_the_url_itself_is_refused_where_a_name_is_asked_for() -> None:
    with pytest.raises(ValueError, match="name of an environment variable"):
        Alerts(webhook_env="https://hooks.example/T000")


def test_who_is_told_is_no_part_of_a_release() -> None:
    source = {"name": "web", "kind": "laion", "files": "*.parquet"}
    corpus = parse_corpus({"workspace": "w", "sources": [source], "alerts": {"command": f"tell {SECRET}"}})
    assert SECRET not in json.dumps(public_config(corpus))
