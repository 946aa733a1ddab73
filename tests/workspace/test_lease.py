"""Leases: one holder at a time, on disk and on S3, and none that is held by the dead."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mmdata.errors import UserError
from mmdata.storage.atomic import publish_json
from mmdata.workspace import lease, lease_store
from mmdata.workspace.layout import Workspace
from mmdata.workspace.lease import LeaseLost, holder_of, leased
from mmdata.workspace.lease_store import lease_path


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
    dead = replace(lease._this_process("died", 1000), pid=gone.pid, started=1)
    publish_json(lease_path(workspace, "release"), asdict(dead))
    assert holder_of(workspace, "release") is None
    with leased(workspace, "release", "goes on"):
        pass


def test_a_holder_elsewhere_holds_until_it_expires(workspace: Workspace) -> None:
    elsewhere = replace(lease._this_process("is far away", 1000), host="another.machine")
    publish_json(lease_path(workspace, "release"), asdict(elsewhere))
    with pytest.raises(UserError, match=r"on another\.machine"), leased(workspace, "release", "wants it"):
        pass
    past = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    publish_json(lease_path(workspace, "release"), asdict(replace(elsewhere, expires_at=past)))
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
        thief = replace(lease._this_process("took it", 1000), host="another.machine")
        publish_json(lease_path(workspace, "release"), asdict(thief))
        time.sleep(1.0)
        with pytest.raises(LeaseLost, match="took it"):
            own.check()
    holder = holder_of(workspace, "release")
    assert holder is not None
    assert holder.what == "took it", "what is not ours is not given back"


def test_an_error_after_the_lease_was_taken_over_says_that_it_is_lost(workspace: Workspace) -> None:
    """The heir removes the drafts of the one before it, who then fails on a missing file: that is not the cause."""
    said = r"part-web-000000 is lost: took it.* took it over\. Remedy: .*What failed then: draft\.tar"
    with pytest.raises(LeaseLost, match=said), leased(workspace, "part-web-000000", "sleeps"):
        thief = replace(lease._this_process("took it", 1000), host="another.machine")
        publish_json(lease_path(workspace, "part-web-000000"), asdict(thief))
        raise FileNotFoundError("draft.tar")
    with pytest.raises(FileNotFoundError, match="draft"), leased(workspace, "release", "works"):
        raise FileNotFoundError("draft.tar")


STOPPED = """
import os, signal, sys
from mmdata.workspace.lease import leased
from mmdata.storage.atomic import atomic_path
from mmdata.workspace.layout import Workspace
workspace = Workspace(sys.argv[1])
with leased(workspace, "release", "sleeps", expiry_s=1.0):
    with atomic_path(workspace.releases_dir / "latest") as draft:
        draft.write_text("old\\n")
        if "within" in sys.argv:
            import mmdata.storage.atomic
            real = mmdata.storage.atomic.sync
            def stopping(path):
                real(path)
                if path.is_dir() and path.name == "releases":
                    os.kill(os.getpid(), signal.SIGSTOP)
            mmdata.storage.atomic.sync = stopping
        else:
            os.kill(os.getpid(), signal.SIGSTOP)
"""


def _stopped(workspace: Workspace, *how: str) -> subprocess.Popen[str]:
    root = Path(__file__).resolve().parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", STOPPED, str(workspace.root), *how],
        env={**os.environ, "PYTHONPATH": str(root)},
        stderr=subprocess.PIPE,
        text=True,
    )
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    return process


def test_a_holder_that_was_stopped_does_not_undo_what_its_heir_wrote(workspace: Workspace) -> None:
    process = _stopped(workspace)
    with leased(workspace, "release", "takes over", wait_s=30):
        workspace.set_latest("new")
    process.send_signal(signal.SIGCONT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "LeaseLost: the lease release is lost" in said
    assert workspace.latest() == "new"


def test_a_holder_stopped_within_a_change_is_not_overtaken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_store, "LOCK_TIMEOUT_S", 0.2)
    workspace = Workspace(str(tmp_path))
    (tmp_path / "releases").mkdir()
    process = _stopped(workspace, "within")
    try:
        time.sleep(1.2)
        with pytest.raises(UserError, match="held by sleeps"), leased(workspace, "release", "wants it", wait_s=1):
            pass
    finally:
        process.send_signal(signal.SIGCONT)
    assert process.wait(timeout=60) == 0
    with leased(workspace, "release", "goes on", wait_s=30):
        assert workspace.latest() == "old"


def test_a_store_that_is_away_ends_no_renewal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client has errors of its own that are no OSError."""
    with leased(Workspace(str(tmp_path)), "release", "works", expiry_s=0.6) as own:
        real, tries = own._store.renew, iter([RuntimeError("away"), RuntimeError("away still")])

        def renew(*given: object) -> object:
            for error in tries:
                raise error
            return real(*given)

        monkeypatch.setattr(own._store, "renew", renew)
        time.sleep(1.5)
        own.check()
        assert own._thread.is_alive()
        monkeypatch.setattr(own._store, "give_back", renew)
