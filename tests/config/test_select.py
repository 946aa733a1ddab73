"""Section `select`: rules that contradict each other, and keys without effect."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from mmdata.config import Balance, Filter


def test_two_score_rules_are_refused() -> None:
    with pytest.raises(ValidationError, match="min_clip_score or top_fraction, not both"):
        Filter(min_clip_score=0.1, top_fraction=0.5)


@pytest.mark.parametrize("mix", [{"text": 0.5}, {"text": 1.5, "image+text": -0.5}])
def test_the_shares_of_a_mix_are_shares_of_a_whole(mix: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match="sum to 1"):
        Balance(mix=mix)


def test_keys_of_the_domain_caps_count_only_with_a_cap() -> None:
    assert Balance().unused == {"max_per_host", "max_per_domain", "keep_of_domain", "domain_suffixes"}
    assert Balance(max_per_host=5).unused == set()
