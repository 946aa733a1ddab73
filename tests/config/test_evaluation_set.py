"""Section select.decontaminate: what an evaluation set may be."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from mmdata.config import Select
from mmdata.config.evaluation_set import EvaluationSet


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"name": "a"}, "exactly one"),
        ({"name": "a", "table": "t.parquet", "pictures": "p"}, "exactly one"),
        ({"name": "a", "pictures": "p", "columns": {"url": "u"}}, "columns are those of a table"),
        ({"name": "a:b", "pictures": "p"}, "pattern"),
        ({"name": "a", "table": "t.parquet", "columns": {"md5": "m"}}, "sha256"),
    ],
)
def test_a_set_that_says_nothing_or_too_much_is_refused(given: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        EvaluationSet.model_validate(given)


def test_two_sets_have_two_names() -> None:
    one = {"name": "a", "table": "t.parquet"}
    with pytest.raises(ValidationError, match="two evaluation sets are named 'a'"):
        Select.model_validate({"decontaminate": [one, one]})
