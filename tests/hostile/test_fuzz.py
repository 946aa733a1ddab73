"""Thousands of damaged files, a few hundred of them each time: none crashes, hangs, or ends without a reason.

`make fuzz` (or MMDATA_FUZZ=20) tries twenty times as many, other ones each time.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.fuzzing import SEED, TIMES
from tests.support.hostile_inputs import FUZZED

WORKER = Path(__file__).with_name("fuzz_worker.py")


@pytest.mark.timeout(300 * TIMES)
@pytest.mark.parametrize("kind", FUZZED)
def test_damaged_files_are_a_reason_each(kind: str, tmp_path: Path) -> None:
    if kind == "films":
        pytest.importorskip("av")
    command = [sys.executable, str(WORKER), kind, str(SEED), str(FUZZED[kind] * TIMES), str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    at = (tmp_path / "at").read_text() if (tmp_path / "at").exists() else "before the first"
    assert ended.returncode == 0, f"{at}: {ended.stderr[-3000:]}"
    found = json.loads(ended.stdout.splitlines()[-1])
    assert sum(found["outcomes"].values()) == FUZZED[kind] * TIMES
    assert len(found["outcomes"]) > 1, "nothing was damaged"
    assert found["slowest_s"] < 20
