"""Loading the command line, and how its errors end it."""

from __future__ import annotations

import errno
import subprocess
import sys
import textwrap
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import typer

from mmdata.cli import main
from mmdata.cli.main import app
from mmdata.errors import DataError

COMMANDS = sorted(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
HEAVY = ["dagster", "polars", "pyarrow", "numpy", "torch", "fsspec", "rich.progress", "yaml", "training"]


def test_every_command_that_the_contract_names_is_there() -> None:
    assert set(COMMANDS) >= {"init", "build", "ui", "status", "explain", "verify", "report", "doctor", "demo", "train"}


def test_help_of_every_command_imports_nothing_heavy() -> None:
    code = textwrap.dedent(f"""
        import sys
        from mmdata.cli.main import app
        for command in [[], *([name] for name in {COMMANDS})]:
            try:
                app([*command, "--help"])
            except SystemExit as ended:
                print(command, ended.code)
            if loaded := [name for name in {HEAVY} if name in sys.modules]:
                sys.exit(f"{{command}} imports {{loaded}}")
    """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("Usage") == len(COMMANDS) + 1


def test_a_user_error_is_one_message_and_exit_code_2(mmdata_process: Any, tmp_path: Path) -> None:
    done = mmdata_process("status", "-c", tmp_path / "none.yaml")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "mmdata init" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_key_names_the_nearest(mmdata: Any, tmp_path: Path) -> None:
    (tmp_path / "corpus.yaml").write_text("workspace: w\nsources: [{name: a, kind: laion, files: x, part_row: 3}]\n")
    done = mmdata("status", "-c", tmp_path / "corpus.yaml")
    assert done.returncode == 2
    assert "did you mean `part_rows`" in done.stderr


def test_an_unknown_command_is_a_user_error(mmdata: Any) -> None:
    assert mmdata("biuld").returncode == 2


@pytest.mark.parametrize(("error", "code"), [(DataError("a shard is cut"), 1), (KeyboardInterrupt(), 130)])
def test_exit_codes(error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def fails(**_: object) -> None:
        raise error

    monkeypatch.setattr(main, "app", fails)
    with pytest.raises(SystemExit) as ended:
        main.run()
    assert ended.value.code == code
    assert "Traceback" not in capsys.readouterr().err


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(**_: object) -> None:
        raise DataError("a shard is cut")

    monkeypatch.setattr(main, "app", fails)
    monkeypatch.setenv("MMDATA_DEBUG", "1")
    with pytest.raises(DataError):
        main.run()


def test_the_version_is_that_of_the_package(mmdata: Any) -> None:
    done = mmdata("--version")
    assert (done.returncode, done.stdout) == (0, f"mmdata {version('mmdata')}\n")


@pytest.mark.parametrize("command", ["build", "status", "plan", "releases"])
def test_a_folder_as_corpus_yaml_is_one_line_with_a_remedy(mmdata: Any, tmp_path: Path, command: str) -> None:
    done = mmdata(command, "-c", tmp_path)
    assert done.returncode == 2
    assert done.stderr == f"error: {tmp_path}: Is a directory. Remedy: name a file, not a folder.\n"


def test_an_error_of_a_full_disk_is_one_line_with_a_remedy(mmdata: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/data/shards/a.tar")

    monkeypatch.setattr(main, "app", full)
    done = mmdata("build")
    assert done.returncode == 2
    assert done.stderr.startswith("error: /data/shards/a.tar: No space left on device. Remedy: free space")
    assert done.stderr.count("\n") == 1


def test_any_other_error_keeps_its_traceback(mmdata: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(main, "app", broken)
    with pytest.raises(ZeroDivisionError):
        main.run()
