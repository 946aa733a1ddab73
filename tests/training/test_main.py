"""`python -m training`: its options, what it prints, and its exit codes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from training.__main__ import main
from training.run import read_result

QUICK = ["align.steps=1", "align.batch_size=4", "align.validate_samples=4", "data.workers=0", "device=cpu"]


def run_main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["training", *arguments])
    return main()


def test_it_trains_a_stage_and_names_its_checkpoint(
    numbered: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [word for override in QUICK for word in ("--set", override)]
    output = ["--preset", "tiny", "--stage", "align", "--output", str(tmp_path)]
    assert run_main(monkeypatch, numbered, *output, *options) == 0
    result = read_result(tmp_path / "align")
    assert result is not None
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("train step 1 loss ")
    assert lines[-1] == f"align: finished after 1 steps; {result.checkpoint}"


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--preset", "huge"], "error: no preset 'huge'"),
        (["--set", "align.lr"], "error: --set 'align.lr': expected key=value"),
        ([], "error: "),  # the folder holds no release
    ],
)
def test_a_wrong_request_ends_with_its_error(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    error: str,
) -> None:
    assert run_main(monkeypatch, str(tmp_path), "--output", str(tmp_path / "out"), *options) == 2
    assert capsys.readouterr().err.startswith(error)
