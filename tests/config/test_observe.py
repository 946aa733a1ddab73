"""Section `observe`: which ports and formats are allowed, and where a relative file lies."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from mmdata.config import Observe


def test_the_textfile_lies_beside_corpus_yaml(tmp_path: Path) -> None:
    observe = Observe.model_validate({"metrics_textfile": "mmdata.prom"}, context={"folder": tmp_path})
    assert observe.metrics_textfile == str(tmp_path / "mmdata.prom")


@pytest.mark.parametrize("wrong", [{"metrics_port": 0}, {"metrics_port": 65536}, {"log_format": "xml"}])
def test_a_port_and_a_format_that_do_not_exist_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Observe.model_validate(wrong)
