"""A host that blocks is left alone, and one URL at a time finds out whether it still blocks."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime

import pytest

from mmdata.web.failures import FetchError
from mmdata.web.host_pauses import BLOCKS_BEFORE_PAUSE, MAX_PAUSE_S, HostPauses
from mmdata.workspace.layout import Workspace
from mmdata.workspace.paused_hosts import Pause, read_pauses, write_pause

BOT_CHECK = FetchError("site_blocked", "Sign in to confirm you're not a bot", may_pass=True)
BUSY = FetchError("http_429", "", may_pass=True)
NOT_FOUND, TIMEOUT = FetchError("http_404", ""), FetchError("timeout", "", may_pass=True)


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    return Workspace(str(tmp_path))


def block(pauses: HostPauses, host: str = "h", times: int = BLOCKS_BEFORE_PAUSE, failure: FetchError = BUSY) -> None:
    for number in range(times):
        assert pauses.block_error(host, f"http://h/{number}") is None
        pauses.record(host, f"http://h/{number}", failure)


def seconds_of(pause: Pause) -> float:
    return (datetime.fromisoformat(pause.until) - datetime.now(UTC)).total_seconds()


@pytest.mark.parametrize("failure", [BUSY, BOT_CHECK, FetchError("http_503", "", may_pass=True)])
def test_after_some_blocks_the_host_is_left_alone_and_the_others_are_not(workspace, failure):
    pauses = HostPauses(workspace, 60)
    block(pauses, failure=failure)
    refused = pauses.block_error("h", "http://h/next")
    assert (refused.error, refused.may_pass, refused.status) == ("host_blocked", True, "failed_to_download")
    assert 55 < refused.retry_after_s <= 60
    assert pauses.block_error("other", "http://other/1") is None
    (pause,) = read_pauses(workspace).values()
    assert (pause.host, pause.reason, pause.times) == ("h", failure.error, 1)


def test_a_few_blocks_among_many_answers_pause_nothing(workspace):
    pauses = HostPauses(workspace, 60)
    for _ in range(50):
        block(pauses, times=1)
        pauses.record("h", "http://h/x", NOT_FOUND)
        pauses.record("h", "http://h/y", None)
    assert read_pauses(workspace) == {}


def test_a_pause_is_as_long_as_the_server_asks(workspace):
    pauses = HostPauses(workspace, 60)
    pauses.record("h", "http://h/x", FetchError("http_429", "", may_pass=True, retry_after_s=7200))
    block(pauses, times=BLOCKS_BEFORE_PAUSE - 1)
    assert 7100 < seconds_of(read_pauses(workspace)["h"]) <= 7200


def test_the_next_run_knows_the_pause_and_one_url_ends_it(workspace):
    block(HostPauses(workspace, 60))
    assert HostPauses(workspace, 60).block_error("h", "http://h/1") is not None
    write_pause(workspace, over("h", times=3))
    later = HostPauses(workspace, 60)
    assert later.block_error("h", "http://h/1") is None
    later.record("h", "http://h/1", NOT_FOUND)  # an answer, even if it has no medium
    assert later.block_error("h", "http://h/2") is None
    assert read_pauses(workspace) == {}


def over(host: str, times: int) -> Pause:
    long_ago = datetime(2026, 1, 1, tzinfo=UTC).isoformat()
    return Pause(host, "http_429", long_ago, datetime.now(UTC).isoformat(), times)


@pytest.mark.parametrize(("times", "pause_s"), [(1, 120), (2, 240), (5, 1920), (400, MAX_PAUSE_S)])
@pytest.mark.parametrize("failure", [BUSY, TIMEOUT])
def test_a_probe_that_is_blocked_doubles_the_pause(workspace, times, pause_s, failure):
    write_pause(workspace, over("h", times))
    pauses = HostPauses(workspace, 60)
    assert pauses.block_error("h", "http://h/1") is None
    pauses.record("h", "http://h/1", failure)
    pause = read_pauses(workspace)["h"]
    assert (pause.times, pause.since) == (times + 1, over("h", 1).since)
    assert seconds_of(pause) == pytest.approx(pause_s, abs=5)
    assert pauses.block_error("h", "http://h/2") is not None


def test_a_url_that_was_never_sent_says_nothing_about_the_host(workspace):
    write_pause(workspace, over("h", 1))
    pauses = HostPauses(workspace, 60)
    assert pauses.block_error("h", "http://h/1") is None
    pauses.record("h", "http://h/1", FetchError("private_address", ""))
    assert pauses.block_error("h", "http://h/2") is None, "the next URL is the probe"
    pauses.record("h", "http://h/2", None)
    assert read_pauses(workspace) == {}


@pytest.mark.parametrize(("failure", "asked"), [(None, True), (BUSY, False)])
def test_while_one_url_probes_the_others_of_its_host_wait(workspace, failure, asked):
    write_pause(workspace, over("h", 1))
    pauses = HostPauses(workspace, 60)
    assert pauses.block_error("h", "http://h/probe") is None
    results = []
    threads = [
        threading.Thread(target=lambda n=n: results.append(pauses.block_error("h", f"http://h/{n}"))) for n in range(4)
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    assert results == []
    pauses.record("h", "http://h/probe", failure)
    for thread in threads:
        thread.join(5)
    assert [result is None for result in results] == [asked] * 4


def test_answers_that_were_on_their_way_do_not_end_a_pause(workspace):
    pauses = HostPauses(workspace, 60)
    block(pauses)
    pauses.record("h", "http://h/late", None)
    assert pauses.block_error("h", "http://h/next") is not None
