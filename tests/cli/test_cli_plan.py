"""`mmdata plan` before and after a build."""

from __future__ import annotations

import json

from tests.cli.conftest import Mmdata
from tests.support.standin_stages import Small


def test_plan_lists_the_work_of_a_part_and_changes_nothing(small: Small, mmdata: Mmdata) -> None:
    small.build()
    small.workspace.forget_stage("web-000001", "features")
    before = small.workspace.latest()
    done = mmdata("plan", "-c", small.config_path)
    assert done.returncode == 0, done.stderr
    assert "1 of 2 parts" in done.stdout
    line = next(line for line in done.stdout.splitlines() if line.startswith("web-000001"))
    assert line.split()[1] == "features"
    assert small.workspace.latest() == before
    assert small.workspace.part_stamp("web-000001", "features") is None


def test_plan_of_a_built_corpus_says_that_all_is_up_to_date(small: Small, mmdata: Mmdata) -> None:
    small.build()
    assert "all 2 parts are up to date" in mmdata("plan", "-c", small.config_path).stdout
    as_json = json.loads(mmdata("plan", "-c", small.config_path, "--json").stdout)
    assert as_json["parts"]["work"] == []
