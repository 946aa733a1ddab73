"""Joint metrics of many processes: one sum, and no more files than processes at once."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path
from typing import Any

from mmdata.config import Observe
from mmdata.observe import metrics_files
from tests.support.prometheus import series

COUNTING = """
import sys, time
from mmdata.observe import metrics, metrics_files
metrics_files.join()
metrics.waited(float(sys.argv[1]))
print("counted", flush=True)
sys.stdin.read()
"""


def test_many_processes_are_told_as_one_and_leave_no_more_files_than_ran_at_once(
    tmp_path: Path, unused_port: int
) -> None:
    def start(shared: dict[str, str], amount: int) -> Any:
        process = subprocess.Popen(
            [sys.executable, "-c", COUNTING, str(amount)],
            env=os.environ | shared,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "counted\n"
        return process

    with metrics_files.gathered(Observe(metrics_port=unused_port), tmp_path / "shared") as shared:
        together = [start(shared, 1), start(shared, 10)]
        for one in together:
            one.communicate()
        for amount in (100, 1000):  # one after the other, each in a slot that is free again
            start(shared, amount).communicate()
        with urllib.request.urlopen(f"http://127.0.0.1:{unused_port}/metrics") as answer:
            told = series(answer.read().decode())
    assert told["mmdata_lease_wait_seconds_total"] == 1111
    slots = {re.sub(r".*_(slot\d+)\.db", r"\1", path.name) for path in (tmp_path / "shared").glob("*.db")}
    assert slots == {"slot0", "slot1"}


def test_gathering_begins_anew_and_its_text_file_is_written(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "counter_slot0.db").write_bytes(b"old")
    written = threading.Event()
    path = tmp_path / "mmdata.prom"
    with metrics_files.gathered(Observe(metrics_textfile=str(path)), tmp_path / "shared"):
        for _ in range(100):
            if path.exists():
                break
            written.wait(0.05)
        assert not (tmp_path / "shared" / "counter_slot0.db").exists()
    assert path.exists()
