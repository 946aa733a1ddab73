"""The options that commands share: which release RELEASE names, and which log and port a command gets."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mmdata.cli.options import find_release, is_path, log_as, observed
from mmdata.errors import UserError
from mmdata.observe import logs
from tests.cli.conftest import Released


def test_a_release_is_found_by_its_folder_its_workspace_its_id_and_as_the_latest(released: Released) -> None:
    names = (str(released.folder), str(released.built.workspace.root), released.id, released.id[:5], "latest")
    assert {Path(find_release(name, released.config).path) for name in names} == {released.folder}


def test_an_id_is_no_path_unless_there_is_such_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_path("s3://bucket/corpus") and is_path("./0123456789abcdef")
    assert not is_path("0123456789abcdef")
    (tmp_path / "0123456789abcdef").mkdir()
    assert is_path("0123456789abcdef")


def test_without_a_release_the_error_says_how_to_make_one(tmp_path: Path) -> None:
    config = tmp_path / "corpus.yaml"
    config.write_text("workspace: w\nsources: [{name: a, kind: laion, files: x}]\n")
    with pytest.raises(UserError, match=r"no release yet. Remedy: mmdata build -c"):
        find_release("latest", config)


def test_options_of_the_log_reach_child_processes_and_leave_the_rest_to_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(logs.FORMAT_VARIABLE, "text")
    monkeypatch.setenv(logs.LEVEL_VARIABLE, "error")
    log_as("json", None)
    assert (os.environ[logs.FORMAT_VARIABLE], os.environ[logs.LEVEL_VARIABLE]) == ("json", "error")


def test_a_port_of_the_command_line_overrides_that_of_corpus_yaml(released: Released) -> None:
    corpus = released.built.corpus
    assert observed(corpus, None) == corpus.observe
    assert observed(corpus, 9100).metrics_port == 9100
