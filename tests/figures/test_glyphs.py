"""What the one font lacks is marked, and control characters go."""

from __future__ import annotations

from mmdata.figures.glyphs import MISSING, drawable


def test_undrawable_runs_become_one_mark() -> None:
    assert drawable("a 猫猫 b\n\tc") == f"a {MISSING} b c"
    assert drawable("\u202eabc") == "abc"
