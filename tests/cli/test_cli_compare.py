"""`mmdata compare` in the terminal, as JSON and as a page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Mmdata
from tests.support.compared import Compared, make_compared


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Compared:
    return make_compared(tmp_path_factory.mktemp("compared"), pairs=300)


def test_the_terminal_shows_arms_metrics_and_verdicts(compared: Compared, mmdata: Mmdata, tmp_path: Path) -> None:
    clean = compared.table(tmp_path / "clean.parquet", compared.is_true)
    page = tmp_path / "page.html"
    options = ("-c", compared.config_path, "--truth", compared.truth, "--budget", "30", "--html", page)
    done = mmdata("compare", "raw", clean, *options)
    assert done.returncode == 0, done.stderr
    assert "clean against raw:" in done.stdout
    assert "100.0%" in done.stdout
    assert "both ways, recall@10" in done.stdout
    assert "clean against raw" in page.read_text()


def test_json_is_all_that_is_printed(compared: Compared, mmdata: Mmdata) -> None:
    half = "select.filter.top_fraction=0.5"
    done = mmdata(
        "compare", "raw", f"half:{half}", "-c", compared.config_path, "--json", "--budget", "5", "--seeds", "2"
    )
    found = json.loads(done.stdout)
    assert [arm["name"] for arm in found["arms"]] == ["raw", "half"]
    assert (found["steps"], found["seeds"]) == (5, 2)


def test_a_wrong_arm_ends_with_the_exit_code_of_a_users_error(compared: Compared, mmdata: Mmdata) -> None:
    done = mmdata("compare", "raw", "nothing", "-c", compared.config_path)
    assert done.returncode == 2
    assert "no release 'nothing'" in done.stderr


def test_without_a_corpus_an_id_cannot_be_found(
    mmdata: Mmdata, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MMDATA_CONFIG", raising=False)
    done = mmdata("compare", "raw", "latest")
    assert done.returncode == 2
    assert "--config corpus.yaml" in done.stderr
