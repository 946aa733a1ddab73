"""Section `select`: rules that contradict each other."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from mmdata.config import Filter


def test_two_score_rules_are_refused() -> None:
    with pytest.raises(ValidationError, match="min_clip_score or top_fraction, not both"):
        Filter(min_clip_score=0.1, top_fraction=0.5)
