"""`mmdata init` and `mmdata schema`."""

from __future__ import annotations

import json
from pathlib import Path

from mmdata.config.load import load_corpus
from tests.cli.conftest import Mmdata


def test_schema_is_json(mmdata: Mmdata) -> None:
    assert "sources" in json.loads(mmdata("schema").stdout)["properties"]


def test_init_writes_a_corpus_that_loads_and_never_overwrites_one(mmdata: Mmdata, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    assert mmdata("init", folder).returncode == 0
    assert load_corpus(folder / "corpus.yaml").sources
    assert (folder / "inbox").is_dir()
    (folder / "corpus.yaml").write_text("mine")
    again = mmdata("init", folder)
    assert again.returncode == 2
    assert "exists already" in again.stderr
    assert (folder / "corpus.yaml").read_text() == "mine"
