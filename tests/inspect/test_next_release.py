"""The forecast of the release is what a build then makes."""

from __future__ import annotations

import pytest

from mmdata.releases.pins import roll_back
from tests.inspect.conftest import Nightly


@pytest.mark.parametrize(
    ("sections", "change"),
    [
        ({"select": {"filter": {"min_clip_score": 0.5}}}, "select.filter.min_clip_score: null -> 0.5"),
        ({"shards": {"shard_mb": 0.04, "validation_fraction": 0.1}}, "shards.shard_mb: 0.02 -> 0.04"),
        ({"instruct": {"languages": ["en"]}}, 'instruct.languages: ["en","zh"] -> ["en"]'),
        ({"seed": 7}, "seed: 0 -> 7"),
    ],
)
def test_a_changed_setting_of_the_release_runs_no_part_and_its_id_is_known(
    built: Nightly, sections: dict, change: str
) -> None:
    first = built.latest
    built.sections = sections
    plan = built.plan()
    assert plan.work == []
    assert plan.forecast.verdict == "new"
    assert change in plan.forecast.why
    assert built.refresh() == plan.forecast.release_id != first
    assert built.ran == []


def test_a_setting_of_speed_changes_nothing(built: Nightly) -> None:
    built.sections = {"download": {"threads": 3, "retries": 5}, "engine": {"wait_s": 1}}
    plan = built.plan()
    assert (plan.work, plan.forecast.verdict) == ([], "stands")


def test_a_rolled_back_release_is_not_promised_again(built: Nightly) -> None:
    first = built.latest
    built.write("c.parquet", range(60, 75))
    second = built.refresh()
    roll_back(built.workspace, first)
    plan = built.plan()
    assert (plan.forecast.verdict, plan.forecast.release_id) == ("stands", first)
    assert second in plan.forecast.why[0]
