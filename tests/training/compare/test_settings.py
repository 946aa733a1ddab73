"""What the command line gives replaces what corpus.yaml says, and both are checked."""

from __future__ import annotations

from pathlib import Path

import pytest
from upath import UPath

from mmdata.errors import UserError
from tests.support.compared import Compared
from training.compare.settings import cache_folder, experiment_of


def test_the_command_line_goes_before_corpus_yaml(compared: Compared) -> None:
    found = experiment_of(compared.corpus, ["raw", "draft"], {"steps": 7, "seeds": None, "truth": Path("t.parquet")})
    assert (found.recipe.steps, found.recipe.batch, found.seeds) == (7, 64, 3)
    assert found.truth == Path("t.parquet")


def test_without_a_corpus_the_defaults_count() -> None:
    assert experiment_of(None, ["a", "b"], {}).seeds == 10


def test_a_value_out_of_range_is_an_error() -> None:
    with pytest.raises(UserError, match="held_out_share"):
        experiment_of(None, ["a", "b"], {"held_out_share": 1.5})


def test_the_cache_lies_in_the_workspace_unless_it_is_named(compared: Compared, tmp_path: Path) -> None:
    assert cache_folder(compared.corpus, None) == compared.workspace.root / "compare"
    assert cache_folder(compared.corpus, tmp_path) == UPath(tmp_path)
    assert cache_folder(None, None).name == "mmdata-compare"
