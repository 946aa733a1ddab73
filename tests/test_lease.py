"""Leases: one holder at a time, on disk and on S3, and none that is held by the dead."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mmdata import lease
from mmdata.errors import DataError, UserError
from mmdata.lease import LeaseLost, holder_of, leased, store_of
from mmdata.publish import publish_json
from mmdata.workspace import Workspace
from tests.buckets import s3_bucket


@pytest.fixture(params=["disk", "s3"])
def workspace(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Workspace]:
    if request.param == "disk":
        yield Workspace(str(tmp_path))
        return
    with s3_bucket() as url:
        yield Workspace(url)


def test_the_second_is_told_who_holds_it(workspace: Workspace) -> None:
    with leased(workspace, "release", "selects"):
        holder = holder_of(workspace, "release")
        assert holder is not None
        assert holder.what == "selects"
        with (
            pytest.raises(UserError, match=r"release is held by selects, process \d+ on"),
            leased(workspace, "release", "selects, too"),
        ):
            pass
        with leased(workspace, "part-web-000000", "fetches"):
            pass
    assert holder_of(workspace, "release") is None
    with leased(workspace, "release", "goes on"):
        pass


def test_the_second_waits_until_the_first_has_ended(workspace: Workspace) -> None:
    order: list[str] = []
    begun = threading.Event()

    def first() -> None:
        with leased(workspace, "release", "first"):
            begun.set()
            time.sleep(1.0)
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    begun.wait()
    with leased(
        workspace, "release", "second", wait_s=30, on_wait=lambda holder: order.append(f"waits for {holder.what}")
    ):
        order.append("second")
    thread.join()
    assert order == ["waits for first", "first", "second"]


def test_only_one_of_many_at_once_gets_it(workspace: Workspace) -> None:
    inside, most = 0, 0
    lock = threading.Lock()

    def work() -> None:
        nonlocal inside, most
        with leased(workspace, "release", "works", wait_s=60, expiry_s=30):
            with lock:
                inside += 1
                most = max(most, inside)
            time.sleep(0.05)
            with lock:
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_a_holder_that_died_on_this_machine_holds_nobody_up(workspace: Workspace) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    dead = replace(lease._own("died", 1000), pid=gone.pid, started=1)
    publish_json(lease._path(workspace, "release"), asdict(dead))
    assert holder_of(workspace, "release") is None
    with leased(workspace, "release", "goes on"):
        pass


def test_a_holder_elsewhere_holds_until_it_expires(workspace: Workspace) -> None:
    elsewhere = replace(lease._own("is far away", 1000), host="another.machine")
    publish_json(lease._path(workspace, "release"), asdict(elsewhere))
    with pytest.raises(UserError, match=r"on another\.machine"), leased(workspace, "release", "wants it"):
        pass
    past = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    publish_json(lease._path(workspace, "release"), asdict(replace(elsewhere, expires_at=past)))
    with leased(workspace, "release", "takes over"):
        pass


def test_a_long_holder_renews(workspace: Workspace) -> None:
    with leased(workspace, "release", "takes long", expiry_s=0.9) as own:
        time.sleep(2.5)
        own.check()
        with pytest.raises(UserError, match="takes long"), leased(workspace, "release", "wants it"):
            pass


def test_a_lease_that_was_taken_over_says_so(workspace: Workspace) -> None:
    with leased(workspace, "release", "sleeps", expiry_s=0.6) as own:
        thief = replace(lease._own("took it", 1000), host="another.machine")
        publish_json(lease._path(workspace, "release"), asdict(thief))
        time.sleep(1.0)
        with pytest.raises(LeaseLost, match="took it"):
            own.check()
    holder = holder_of(workspace, "release")
    assert holder is not None
    assert holder.what == "took it", "what is not ours is not given back"


def test_a_write_that_came_too_late_is_refused() -> None:
    """Two that read the same state: the second one's write fails, whatever it was about to do."""
    with s3_bucket() as url:
        workspace = Workspace(url)
        store = store_of(workspace, "release")
        own, other = lease._own("one", 60), lease._own("other", 60)
        _, etag = store._read()  # type: ignore[attr-defined]
        assert store._write(own, etag)  # type: ignore[attr-defined]
        assert not store._write(other, etag)  # type: ignore[attr-defined]
        assert store.take(other).token == own.token


def test_a_process_number_given_again_is_another_process() -> None:
    own = lease._own("lives", 1000)
    assert not own.is_gone(datetime.now(UTC))
    if own.started is not None:
        assert replace(own, started=own.started - 1).is_gone(datetime.now(UTC))


def test_a_file_that_is_no_lease_is_named(tmp_path: Path) -> None:
    (tmp_path / "leases").mkdir()
    (tmp_path / "leases" / "release.json").write_text(json.dumps({"hello": 1}))
    with pytest.raises(DataError, match=r"release\.json: is no lease"), ExitStack() as stack:
        stack.enter_context(leased(Workspace(str(tmp_path)), "release", "reads"))
