"""docs/own-data.md is true: its commands, as they stand on the page, train on a folder of 50 pictures and a JSON."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mmdata.cli.main import app
from tests.support.own_data import in_record_form, write_list, write_pictures

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "own-data.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def run(block: str) -> str:
    """What the commands of a block print."""
    printed = ""
    for line in block.splitlines():
        name, *arguments = shlex.split(line)
        assert name == "mmdata"
        done = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        printed += done.output
    return printed


@pytest.fixture
def user_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of 50 pictures, and a JSON in the form that the page shows."""
    names = write_pictures(tmp_path / "pictures", 50)
    records = [in_record_form(f"pictures/{name}", said=f"Number {number}.") for number, name in enumerate(names)]
    shown = json.loads(blocks("json")[0])
    assert {tuple(record) for record in shown} == {tuple(record) for record in records}
    assert {record["input_image"] for record in shown} <= {record["input_image"] for record in records}
    write_list(tmp_path / "photos.json", records)
    (tmp_path / "mix.toml").write_text(blocks("toml")[0])
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MMDATA_CONFIG", raising=False)
    return tmp_path


def test_the_try_reads_every_record(user_folder: Path) -> None:
    printed = run(blocks("sh")[0])
    assert "instruct: 50 own records, 0 bad, 0 left out" in printed
    assert "done    instruct  2 steps" in printed
    assert (user_folder / "try" / "instruct" / "result.json").exists()


@pytest.mark.slow
def test_every_command_of_the_page_runs(user_folder: Path) -> None:
    from tests.support import workspaces

    built = workspaces.build(str(user_folder / "workspace"), {"web-000000": range(60)})
    workspaces.release(built)
    printed = [run(block) for block in blocks("sh")]
    assert len(printed) == 3
    assert "held-out samples" in printed[1]
    result = json.loads((user_folder / "models" / "instruct" / "result.json").read_text())
    assert result["last_loss"] < result["first_loss"] / 2
    meta = json.loads(next((user_folder / "mixed" / "instruct" / "checkpoints").glob("*/meta.json")).read_text())
    assert [source["weight"] for source in meta["sources"]] == [1.0, 3.0]
