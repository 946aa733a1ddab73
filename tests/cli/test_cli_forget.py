"""`mmdata forget` on a real release of a few samples."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from mmdata.optout.forget_log import read_log
from tests.cli.conftest import Mmdata, Released
from tests.support.workspaces import build, release


def test_a_dry_run_lists_what_would_go_and_writes_nothing(released: Released, mmdata: Mmdata) -> None:
    uid = sorted(released.built.captions)[0]
    done = mmdata("forget", "-c", released.config, "--uid", uid, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "found 1 samples in 1 parts, for 1 selectors" in done.stdout
    assert released.id in done.stdout
    assert read_log(released.built.workspace) == []


def test_forgetting_removes_the_sample_and_signs_an_entry_of_the_log(tmp_path: Path, mmdata: Mmdata) -> None:
    built = build(str(tmp_path / "workspace"), {"web-000000": range(8)})
    held = release(built)
    config = tmp_path / "corpus.yaml"
    config.write_text(yaml.safe_dump(built.corpus.model_dump(mode="json", exclude_none=True)))
    uid = sorted(built.captions)[0]
    done = mmdata("forget", "-c", config, "--uid", uid, "--yes", "--no-near", "--by", "Ada", "--reason", "asked to")
    assert done.returncode == 0, done.stderr
    assert "forgotten: 1 samples in 1 parts" in done.stdout
    assert f"release {held} still contains or shows them; it is the latest" in done.stdout
    again = mmdata("forget", "-c", config, "--uid", uid, "--yes")
    assert "these are forgotten already; nothing is written" in again.stdout
    log = mmdata("forget", "-c", config, "--log").stdout
    assert "2 entries; nobody changed them" in log
    assert "Ada" in log and "asked to" in log


@pytest.mark.parametrize(
    ("arguments", "problem"), [([], "nothing to forget is given"), (["--sha256", "xyz"], "--sha256: ")]
)
def test_a_wrong_request_is_a_user_error(
    released: Released, mmdata: Mmdata, arguments: list[str], problem: str
) -> None:
    done = mmdata("forget", "-c", released.config, *arguments)
    assert done.returncode == 2
    assert problem in done.stderr
