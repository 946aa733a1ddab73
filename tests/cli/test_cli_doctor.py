"""`mmdata doctor` on this machine."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import Mmdata


def test_a_missing_corpus_is_an_error_with_its_remedy(tmp_path: Path, mmdata: Mmdata) -> None:
    done = mmdata("doctor", "-c", tmp_path / "none.yaml")
    assert done.returncode == 1
    assert any(line.startswith("ok       python") for line in done.stdout.splitlines())
    broken = next(line for line in done.stdout.splitlines() if line.startswith("error"))
    assert "corpus" in broken
    assert "mmdata init" in done.stdout
