"""Sections `shards`, `instruct` and `releases`: the bounds of their values."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from mmdata.config import Instruct, Releases, Shards


@pytest.mark.parametrize(
    ("section", "wrong"),
    [
        (Shards, {"shard_mb": 0}),
        (Shards, {"validation_fraction": 1}),  # all of the corpus would be held out
        (Instruct, {"tasks": ["poem"]}),
        (Instruct, {"languages": []}),
        (Releases, {"keep": 0}),  # the latest would be deleted
        (Releases, {"on_sudden_change": "stop"}),
    ],
)
def test_a_value_out_of_its_bounds_is_refused(
    section: type[Shards | Instruct | Releases], wrong: dict[str, object]
) -> None:
    with pytest.raises(ValidationError):
        section.model_validate(wrong)
