"""Each benchmark runs to its end on small inputs: a table that can't be made again is worth nothing."""

from __future__ import annotations

import importlib
import math

import pytest

from benchmarks.__main__ import names

pytestmark = pytest.mark.slow


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", names())
def test_a_benchmark_runs_in_small(name: str) -> None:
    rows = importlib.import_module(f"benchmarks.{name}").run(quick=True)
    assert rows
    for row in rows:
        assert all(math.isfinite(figure) and figure > 0 for figure in (row.ours, row.peer, row.ratio)), row
