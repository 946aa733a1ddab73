"""The offline scorer's parts, assembled once."""

from __future__ import annotations

import pytest

from mmdata.score import offline


@pytest.fixture(scope="session")
def parts():
    folder = offline.text_folder()
    return offline.assemble(64, folder).eval(), offline.preprocess(), offline.tokenizer(folder)
