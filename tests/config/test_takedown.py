"""Section `optout`: a path alone is a list."""

from __future__ import annotations

from mmdata.config import OptOutList


def test_a_path_alone_is_a_list() -> None:
    assert OptOutList.model_validate("lists/a.txt") == OptOutList(path="lists/a.txt")
    assert OptOutList.model_validate({"path": "a.csv", "column": "link", "holds": "url"}).holds == "url"
