"""How a lease is stored: conditional writes on S3, a file lock on a disk, and holders that have ended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mmdata.errors import DataError
from mmdata.workspace import lease, lease_store
from mmdata.workspace.layout import Workspace
from mmdata.workspace.lease import leased
from mmdata.workspace.lease_store import store_of
from tests.support.buckets import s3_bucket


def test_a_write_that_came_too_late_is_refused() -> None:
    """Two that read the same state: the second one's write fails, whatever it was about to do."""
    with s3_bucket() as url:
        workspace = Workspace(url)
        store = store_of(workspace, "release")
        own, other = lease._this_process("one", 60), lease._this_process("other", 60)
        _, etag = store._read()  # type: ignore[attr-defined]
        assert store._write(own, etag)  # type: ignore[attr-defined]
        assert not store._write(other, etag)  # type: ignore[attr-defined]
        assert store.take(other).token == own.token


def test_a_process_number_given_again_is_another_process() -> None:
    own = lease._this_process("lives", 1000)
    assert not own.is_gone(datetime.now(UTC))
    if own.started is not None:
        assert replace(own, started=own.started - 1).is_gone(datetime.now(UTC))


def test_a_file_that_is_no_lease_is_named(tmp_path: Path) -> None:
    (tmp_path / "leases").mkdir()
    (tmp_path / "leases" / "release.json").write_text(json.dumps({"hello": 1}))
    with pytest.raises(DataError, match=r"release\.json: not a lease"), ExitStack() as stack:
        stack.enter_context(leased(Workspace(str(tmp_path)), "release", "reads"))


def test_a_killed_holder_that_nobody_has_reaped_is_gone(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    own = replace(
        lease._this_process("works", 1000), pid=process.pid, started=lease_store.start_of_process(process.pid)
    )
    assert not own.is_gone(datetime.now(UTC))
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert own.is_gone(datetime.now(UTC))
    process.wait()


def test_threads_of_the_holder_change_things_side_by_side_and_others_wait(tmp_path: Path) -> None:
    workspace = Workspace(str(tmp_path))
    store, other = store_of(workspace, "release"), store_of(workspace, "release")
    holder = lease._this_process("works", 60)
    assert store.take(holder) == holder
    both_inside = threading.Barrier(2, timeout=20)

    def change() -> None:
        with store.held(holder):
            both_inside.wait()
            both_inside.wait()

    threads = [threading.Thread(target=change) for _ in range(1)]
    for thread in threads:
        thread.start()
    with store.held(holder) as current:
        assert current == holder
        both_inside.wait()
        with pytest.MonkeyPatch.context() as impatient:
            impatient.setattr(lease_store, "LOCK_TIMEOUT_S", 0.1)
            with pytest.raises(TimeoutError):
                other.give_back(holder)
        both_inside.wait()
    for thread in threads:
        thread.join()
    other.give_back(holder)
    assert lease_store.read_holder(lease_store.lease_path(workspace, "release")) is None
