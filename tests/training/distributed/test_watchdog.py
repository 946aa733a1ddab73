"""A run that hangs ends with an error that names the rank or the worker, and leaves stacks."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mmdata.errors import DataError
from tests.support.tiny_run import settings
from training.distributed.watchdog import Watchdog

LONG = {"steps": 1000, "log_every": 1, "validate_every": 10**6, "checkpoint_every": 10**6}


def hang(release: str, out: Path, launcher: list[str], rank: int, **sections: Any) -> str:
    """The error of a run whose rank stops to read after 8 pieces."""
    config = settings(align=LONG, hang_s=3.0, **sections)
    command = [sys.executable, *launcher, "-m", "tests.support.hanging_run", release]
    command += [config.model_dump_json(), str(out)]
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd()), "OMP_NUM_THREADS": "1"}
    environment |= {"HANGS": str(rank), "AFTER": "8"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, done.stderr[-3000:]
    return done.stderr


@pytest.mark.slow
def test_the_rank_that_the_others_wait_for_is_named(numbered: str, tmp_path: Path) -> None:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    error = hang(numbered, tmp_path, torchrun, 1)
    named = r"error: the run hangs: rank 1 has not moved for \d+ s: step \d+, waiting for data; 1 of 2 ranks wait"
    assert re.search(named, error), error[-3000:]
    folder = tmp_path / "align" / "hang"
    assert "read_or_hang" in (folder / "rank-00001.stacks.txt").read_text()
    assert (folder / "rank-00000.stacks.txt").stat().st_size > 0


@pytest.mark.slow
def test_the_worker_of_the_loader_that_hangs_is_named(numbered: str, tmp_path: Path) -> None:
    error = hang(numbered, tmp_path, [], 0, data={"workers": 1})
    named = r"rank 0 has not moved for \d+ s: step \d+, waiting for data \(worker 0, process \d+, reads for \d+ s\)"
    assert re.search(named, error), error[-3000:]
    assert (tmp_path / "align" / "hang" / "rank-00000.stacks.txt").stat().st_size > 0


def test_a_process_that_hangs_ends_with_an_error_that_says_where(tmp_path: Path) -> None:
    named = r"rank 0 has not moved for \d+ s: step 7, waiting for data\. .*Remedy"
    with pytest.raises(DataError, match=named), Watchdog(tmp_path, 0, 1, hang_s=0.3) as watchdog:
        watchdog.beat("step 7, waiting for data")
        time.sleep(30)
    assert "test_watchdog.py" in (tmp_path / "rank-00000.stacks.txt").read_text()


def test_the_rank_with_the_fewest_beats_is_the_one_that_is_waited_for(tmp_path: Path) -> None:
    (tmp_path / "rank-00001.json").write_text('{"count": 1, "doing": "step 1, validation", "workers": ""}')
    named = r"rank 1 has not moved for \d+ s: step 1, validation; 1 of 2 ranks wait for it"
    with pytest.raises(DataError, match=named), Watchdog(tmp_path, 0, 2, hang_s=0.3) as watchdog:
        for _ in range(3):
            watchdog.beat("step 2, forward and backward pass")
        time.sleep(30)


def test_a_run_that_moves_is_left_alone(tmp_path: Path) -> None:
    with Watchdog(tmp_path / "on", 0, 1, hang_s=4.0) as watchdog:  # more than a busy machine stands still
        for _ in range(10):
            watchdog.beat("step")
            watchdog._ended.wait(0.5)
    assert list(tmp_path.iterdir()) == []
    with Watchdog(tmp_path / "off", 0, 1, hang_s=None):
        pass
    assert not (tmp_path / "off").exists()
