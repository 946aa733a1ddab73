"""The table of the offline scorer's quality."""

from __future__ import annotations

import numpy as np

from mmdata.demo.scorer.measure import MIN_PAIRS, Embedded, quality_table


def test_groups_have_a_line_each_and_sets_of_groups_one_together() -> None:
    rows = np.eye(2 * MIN_PAIRS + 2, dtype=np.float32)
    groups = ["a"] * MIN_PAIRS + ["b"] * MIN_PAIRS + ["too few"] * 2
    pairs = Embedded(rows, rows, [str(number) for number in range(len(rows))], groups)
    lines = quality_table(pairs, 0.3, 0.7, {"both": {"a", "b"}})
    names = [line.split("|")[1].strip() for line in lines[2:]]
    assert names == ["a", "b", "both"]
    assert lines[2].split("|")[2:4] == [f" {MIN_PAIRS} ", " 1.000 ± 0.000 "]
    assert lines[4].split("|")[2] == f" {2 * MIN_PAIRS} "
