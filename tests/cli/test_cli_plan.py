"""`mmdata plan` before and after a build."""

from __future__ import annotations

import json

from tests.cli.conftest import Mmdata
from tests.support.standin_stages import Small


def test_plan_lists_the_work_of_a_changed_file_and_changes_nothing(small: Small, mmdata: Mmdata) -> None:
    small.build()
    small.write("c.txt", "a new line")
    before = small.workspace.latest(), sorted(small.workspace.catalog().parts)
    done = mmdata("plan", "-c", small.config_path)
    assert done.returncode == 0, done.stderr
    assert "c.txt" in done.stdout
    assert "1 of 3 parts" in done.stdout
    assert (small.workspace.latest(), sorted(small.workspace.catalog().parts)) == before


def test_plan_of_a_built_corpus_says_that_all_is_up_to_date(small: Small, mmdata: Mmdata) -> None:
    small.build()
    assert "all 2 parts are up to date" in mmdata("plan", "-c", small.config_path).stdout
    as_json = json.loads(mmdata("plan", "-c", small.config_path, "--json").stdout)
    assert as_json["work"] == []
