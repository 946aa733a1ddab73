"""One written draft release for the tests of this folder."""

from __future__ import annotations

import pytest

from mmdata.instruct.stage import write_instructions
from tests.support import tiny_release


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tiny_release.Tiny:
    """A draft release with its instructions written, all tasks, both languages, all forms."""
    made = tiny_release.build(tmp_path_factory.mktemp("instruct"), samples=400)
    write_instructions(made.corpus, made.workspace)
    return made
