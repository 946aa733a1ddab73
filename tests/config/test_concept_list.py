"""Concept lists as files."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmdata.config.concept_list import read_concepts
from mmdata.errors import UserError


def test_comments_blank_lines_and_repetitions_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "concepts.txt"
    path.write_text("# animals\ncat\n\n  dog \ncat\n猫\n", encoding="utf-8")
    assert read_concepts(str(path)) == ["cat", "dog", "猫"]


@pytest.mark.parametrize(
    ("content", "problem"), [(b"# nothing\n", "holds no concept"), (b"\xff\xfe", "cannot be read")]
)
def test_a_list_without_concepts_is_refused_by_name(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "concepts.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"select\.balance\.concepts: .*concepts\.txt {problem}"):
        read_concepts(str(path))
    with pytest.raises(UserError, match="cannot be read"):
        read_concepts(str(tmp_path / "absent.txt"))
