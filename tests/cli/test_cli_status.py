"""`mmdata status` on a built corpus."""

from __future__ import annotations

import json

from mmdata.workspace.attempts import begin_attempt
from mmdata.workspace.paused_hosts import Pause, write_pause
from tests.cli.conftest import Mmdata
from tests.support.standin_stages import Small


def test_status_lists_parts_failures_and_the_release(small: Small, mmdata: Mmdata) -> None:
    small.write("c.txt", "fine", "boom")
    assert small.build() == ["web-000002"]
    done = mmdata("status", "-c", small.config_path)
    assert done.returncode == 0, done.stderr
    assert "3 parts, 2 ready for a release" in done.stdout
    first = next(line for line in done.stdout.splitlines() if line.startswith("web-"))
    assert first.split()[:4] == ["web-000002", "2", "done", "waiting"]  # what needs a look comes first
    assert str(small.workspace.latest()) in done.stdout


def test_status_as_json_has_what_a_machine_asks_for(small: Small, mmdata: Mmdata) -> None:
    small.write("c.txt", "boom")
    small.build()
    begin_attempt(small.workspace, "web-000002", "media")
    done = mmdata("status", "-c", small.config_path, "--json", "--disk", "--hosts", "3")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["parts"], told["ready"], told["states"]["media"]) == (3, 2, {"done": 2, "started": 1})
    assert told["not_ready"][0]["part"] == "web-000002"
    assert told["stuck"][0]["advice"].startswith("its process died")
    assert told["release"]["release_id"] == small.workspace.latest()
    assert told["disk"]["rows tables"]["files"] == 4
    assert told["hosts"]["looked_at"] == 3


def test_status_names_what_is_stuck_and_what_to_do(small: Small, mmdata: Mmdata) -> None:
    small.write("c.txt", "boom")
    small.build()
    begin_attempt(small.workspace, "web-000002", "media")
    done = mmdata("status", "-c", small.config_path)
    assert "stuck: web-000002, media: its process died at work. Remedy: `mmdata build`" in done.stdout


def test_status_names_the_hosts_that_are_left_alone(small: Small, mmdata: Mmdata) -> None:
    small.build()
    since, until = "2026-11-28T10:00:00+00:00", "2026-11-28T11:00:00+00:00"
    write_pause(small.workspace, Pause("youtube.com", "site_blocked", since, until, 2))
    shown = mmdata("status", "-c", small.config_path).stdout
    (line,) = [line for line in shown.splitlines() if line.startswith("youtube.com")]
    assert line.split() == ["youtube.com", "site_blocked", since, until, "2"]
    told = json.loads(mmdata("status", "-c", small.config_path, "--json").stdout)
    pause = {"host": "youtube.com", "reason": "site_blocked", "since": since, "until": until, "times": 2}
    assert told["paused_hosts"] == [pause]


def test_status_of_a_corpus_that_was_never_built(small: Small, mmdata: Mmdata) -> None:
    done = mmdata("status", "-c", small.config_path)
    assert done.returncode == 0
    assert "no release yet" in done.stdout
