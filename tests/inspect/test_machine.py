"""The examination of a machine."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from mmdata.inspect import machine
from mmdata.inspect.machine import examine


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise socket.gaierror("no names here")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def found(config: Path | None = None) -> dict[str, machine.Examination]:
    return {one.name: one for one in examine(config)}


def test_being_offline_is_a_warning_with_a_remedy() -> None:
    network = found()["network"]
    assert network.verdict == "warning"
    assert "no names here" in network.found
    assert network.remedy


def test_a_machine_that_runs_the_tests_is_fit() -> None:
    assert not [one for one in found().values() if one.verdict == "error"]


def test_a_package_that_is_missing_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(machine.OPTIONAL, "no_such_module", "nothing")
    assert found()["no_such_module"].verdict == "warning"


def test_little_disk_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "LOW_DISK_GB", 10**9)
    assert found()["disk"].verdict == "warning"


def test_two_packages_that_own_cv2_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "CV2_PACKAGES", ("pytest", "pydantic"))
    assert found()["cv2"].verdict == "error"


def test_a_wrong_corpus_and_a_workspace_that_cannot_be_written_are_errors(tmp_path: Path) -> None:
    wrong = tmp_path / "corpus.yaml"
    wrong.write_text("workspace: w\n")
    assert found(wrong)["corpus"].verdict == "error"
    (tmp_path / "a-file").write_text("")
    wrong.write_text("workspace: a-file/inside\nsources: [{name: a, kind: laion, files: x}]\n")
    assert found(wrong)["workspace"].verdict == "error"


def test_a_sound_corpus_leaves_no_trace_of_the_look_at_its_workspace(tmp_path: Path) -> None:
    config = tmp_path / "corpus.yaml"
    config.write_text("workspace: w\nsources: [{name: a, kind: laion, files: x}]\n")
    assert found(config)["workspace"].verdict == "ok"
    assert list((tmp_path / "w").iterdir()) == []


@pytest.mark.parametrize(
    ("score", "verdict", "says"),
    [
        ("{model: demo}", "ok", "the weights are here or within reach"),
        ("{model: 'hf-hub:owner/name'}", "error", "the weights are not on this machine"),
    ],
)
def test_the_scorer_is_examined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, score: str, verdict: str, says: str
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    config = tmp_path / "corpus.yaml"
    config.write_text(f"workspace: w\nsources: [{{name: a, kind: laion, files: x}}]\nscore: {score}\n")
    scorer = found(config)["scorer"]
    assert (scorer.verdict, says in scorer.found) == (verdict, True)
    assert bool(scorer.remedy) == (verdict == "error")


def test_a_scorer_that_does_not_exist_is_an_error_of_the_corpus(tmp_path: Path) -> None:
    config = tmp_path / "corpus.yaml"
    config.write_text("workspace: w\nsources: [{name: a, kind: laion, files: x}]\nscore: {model: ViT-B32}\n")
    corpus = found(config)["corpus"]
    assert (corpus.verdict, "ViT-B-32" in corpus.found) == ("error", True)


@pytest.mark.parametrize(("contact", "verdict"), [("null", "warning"), ("data@lab.example", "ok")])
def test_a_fetch_without_a_place_to_complain_is_a_warning(tmp_path: Path, contact: str, verdict: str) -> None:
    config = tmp_path / "corpus.yaml"
    source = "workspace: w\nsources: [{name: a, kind: laion, files: x}]\n"
    config.write_text(f"{source}score: {{model: demo}}\ndownload: {{contact: {contact}}}\n")
    assert found(config)["contact"].verdict == verdict
