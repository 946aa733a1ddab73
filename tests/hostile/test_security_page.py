"""The figures of docs/security.md are those of the tests' tables."""

from __future__ import annotations

import re
from pathlib import Path

from tests.hostile.test_bombs import COUNTS
from tests.hostile.test_no_secrets import CREDENTIALS
from tests.support.hostile_inputs import counts

PAGE = Path(__file__).resolve().parents[2] / "docs" / "security.md"


def figures() -> dict[str, int]:
    return {**counts(), **COUNTS, "texts with credentials": len(CREDENTIALS)}


def test_the_page_counts_what_the_tests_try() -> None:
    rows = "\n".join(f"| {name} | {count:,} |" for name, count in figures().items())
    rows += f"\n| together | {sum(figures().values()):,} |"
    said = re.search(r"\|---\|---:\|\n(.*?)\n\n", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert said is not None
    assert said[1] == rows, f"write this into docs/security.md:\n{rows}"
