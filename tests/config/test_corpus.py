"""The whole of corpus.yaml: rules that concern several sections."""

from __future__ import annotations

from typing import Any

import pytest

from mmdata.config.load import parse_corpus
from mmdata.errors import UserError


@pytest.mark.parametrize(
    ("rule", "remedy"), [({"max_faces": 1}, "privacy.count_faces"), ({"min_audio_score": 0.1}, "score.audio_model")]
)
def test_a_rule_without_its_measure_is_refused(rule: dict[str, Any], remedy: str) -> None:
    data = {"workspace": "w", "sources": [{"name": "a", "kind": "laion", "files": "x"}], "select": {"filter": rule}}
    with pytest.raises(UserError, match=remedy):
        parse_corpus(data)
