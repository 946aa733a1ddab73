"""The corpus as a resource: where it is read from, and what a wrong corpus.yaml does to the code location."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmdata.config import Refresh
from mmdata.errors import UserError
from pipelines.resources import CONFIG_VARIABLE, CorpusResource, refresh_settings

CONFIG = "workspace: ./w\nsources: [{name: a, kind: laion, files: x}]\nrefresh: {max_parts_per_tick: 7}\n"


def test_the_path_of_the_resource_goes_before_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "corpus.yaml").write_text(CONFIG)
    monkeypatch.setenv(CONFIG_VARIABLE, str(tmp_path / "a" / "corpus.yaml"))
    assert CorpusResource().open()[1].root.path == str(tmp_path / "a" / "w")
    named = CorpusResource(config_path=str(tmp_path / "b" / "corpus.yaml"))
    assert named.open()[1].root.path == str(tmp_path / "b" / "w")


def test_without_a_corpus_the_resource_says_how_to_name_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CONFIG_VARIABLE, raising=False)
    with pytest.raises(UserError, match=r"Remedy: set MMDATA_CONFIG=.*mmdata ui -c"):
        CorpusResource().open()


def test_a_wrong_corpus_leaves_the_code_location_with_the_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "corpus.yaml"
    config.write_text(CONFIG)
    monkeypatch.setenv(CONFIG_VARIABLE, str(config))
    assert refresh_settings.__wrapped__().max_parts_per_tick == 7
    config.write_text("sorces: []\n")
    assert refresh_settings.__wrapped__() == Refresh()
