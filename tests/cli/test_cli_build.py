"""`mmdata build`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import dagster as dg
import pytest
from typer.testing import CliRunner

from mmdata.cli.main import app
from mmdata.errors import DataError, UserError
from mmdata.releases.holds import write_hold
from pipelines import headless
from pipelines.home import dagster_home, record_build
from tests.support.settled import make_settled, write_config
from tests.support.standin_stages import Small

HEAVY = ["dagster", "matplotlib", "torch", "open_clip", "faiss", "cv2", "av", "pandas", "PIL"]
PROCESS_EVENTS = ("subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.exec", "os.system")


@pytest.fixture(autouse=True)
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """An instance in memory: the one on disk takes seconds a build."""
    monkeypatch.setattr(headless, "open_instance", lambda workspace: dg.DagsterInstance.ephemeral())


def test_build_prints_what_each_stage_did_in_plain_lines(small: Small) -> None:
    done = CliRunner().invoke(app, ["build", "-c", str(small.config_path)])
    assert done.exit_code == 0, done.output
    assert "done    media web-000001" in done.output
    assert f"release {small.workspace.latest()}" in done.output
    assert "\x1b" not in done.output


def test_build_with_a_failed_part_releases_the_rest_and_exits_with_1(small: Small) -> None:
    small.write("a.txt", "boom")
    done = CliRunner().invoke(app, ["build", "-c", str(small.config_path)])
    assert done.exit_code == 1
    assert "failed  media web-000000" in done.output
    assert "part web-000000 is left out" in done.output
    assert "the line went dead" in done.output
    assert small.workspace.latest() is not None


def test_build_without_any_sound_part_is_a_data_error(small: Small) -> None:
    small.write("a.txt", "boom")
    small.write("b.txt", "boom")
    done = CliRunner().invoke(app, ["build", "-c", str(small.config_path)])
    assert isinstance(done.exception, DataError)
    assert "no part is ready" in str(done.exception)


def test_an_error_is_printed_once(small: Small) -> None:
    small.write("a.txt", "boom")
    small.write("b.txt", "boom")
    done = CliRunner().invoke(app, ["build", "-c", str(small.config_path)])
    printed = f"{done.output}\nerror: {done.exception}"
    assert printed.count("no part is ready") == 1
    assert "stage failed" not in printed


def test_a_missing_package_is_an_error_of_the_user(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    def lacks_package(*_: object, **__: object) -> None:
        raise UserError("PyAV is missing. Remedy: pip install 'mmdata[video]'")

    monkeypatch.setattr(sys.modules["mmdata.download.stage"], "fetch_part", lacks_package)
    done = CliRunner().invoke(app, ["build", "-c", str(small.config_path)])
    assert isinstance(done.exception, UserError)
    assert "no release was made" in str(done.exception)
    assert "pip install 'mmdata[video]'" in done.output


def test_build_takes_parts_by_name(small: Small) -> None:
    done = CliRunner().invoke(app, ["build", "-c", str(small.config_path), "--parts", "web-000001"])
    assert done.exit_code == 0, done.output
    assert "web-000000" not in done.output


def test_build_makes_anew_what_was_damaged(small: Small) -> None:
    arguments = ["build", "-c", str(small.config_path)]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    table = next(Path(small.workspace.part_dir("web-000000").path).glob("features/*.parquet"))
    sound = table.read_bytes()
    table.write_bytes(sound[: len(sound) // 2])
    mended = CliRunner().invoke(app, [*arguments, "--redo", "web-000000:features"])
    assert mended.exit_code == 0, mended.output
    assert "features web-000000" in mended.output
    assert "features web-000001" not in mended.output
    assert table.read_bytes() == sound


@pytest.mark.parametrize(("named", "said"), [("web-9", "no part web-9"), ("web-000000:shards", "no stage 'shards'")])
def test_redo_of_what_is_not_there_is_a_user_error(small: Small, named: str, said: str) -> None:
    assert CliRunner().invoke(app, ["build", "-c", str(small.config_path)]).exit_code == 0
    done = CliRunner().invoke(app, ["build", "-c", str(small.config_path), "--redo", named])
    assert said in str(done.exception)


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus with nothing to do, whose last build the UI has on record."""
    folder = tmp_path_factory.mktemp("settled") / "corpus"
    built = make_settled(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("DAGSTER_HOME", raising=False)
        record_build(built.workspace, str(built.workspace.latest()))
    return folder


def test_a_build_with_nothing_to_do_imports_no_dagster_and_starts_no_process(settled: Path) -> None:
    code = textwrap.dedent(f"""
        import sys
        started = []
        sys.addaudithook(lambda event, _: started.append(event) if event in {PROCESS_EVENTS} else None)
        sys.argv = ["mmdata", "build", "-c", {str(settled / "corpus.yaml")!r}]
        from mmdata.cli.main import run
        try:
            run()
        finally:
            print([name for name in {HEAVY} if name in sys.modules], started)
    """)
    files = {path: path.stat().st_mtime_ns for path in settled.rglob("*") if path.is_file()}
    environment = {name: value for name, value in os.environ.items() if name != "DAGSTER_HOME"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    first, *_, last = done.stdout.splitlines()
    assert first.startswith("nothing has changed")
    assert "new" not in first
    assert last == "[] []"
    assert {path: path.stat().st_mtime_ns for path in settled.rglob("*") if path.is_file()} == files


def test_a_build_without_a_recent_record_goes_through_the_graph_and_calls_nothing_new(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["build", "-c", str(small.config_path)]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    record = dagster_home(small.workspace) / "last_build.json"
    assert json.loads(record.read_text())["release_id"] == small.workspace.latest()
    record.unlink()
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 0, again.output
    assert "every part is up to date" in again.output
    assert record.exists()


def test_a_build_that_leaves_a_part_out_is_not_recorded_as_done(small: Small) -> None:
    small.write("a.txt", "boom")
    assert CliRunner().invoke(app, ["build", "-c", str(small.config_path)]).exit_code == 1
    assert not (dagster_home(small.workspace) / "last_build.json").exists()


def test_build_of_a_held_release_exits_with_1(small: Small) -> None:
    write_hold(small.workspace, "0123", "it keeps 1 of 40 samples")
    done = CliRunner().invoke(app, ["build", "-c", str(small.config_path)])
    assert done.exit_code == 1, done.output


def test_a_source_that_cannot_be_read_is_named_and_the_exit_code_is_1(tmp_path: Path) -> None:
    make_settled(tmp_path)
    (tmp_path / "cc3m.tsv").write_text("a cat\thttp://e/1\n")
    pairs = {"kind": "pairs", "columns": {"url": "url", "caption": "caption"}}
    good = {"name": "web", "kind": "laion", "files": "inbox/*.parquet"}
    write_config(tmp_path, sources=[good, {"name": "cc3m", "files": "cc3m.tsv", **pairs}])
    arguments = ["build", "-c", str(tmp_path / "corpus.yaml"), "--sources-only"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 1, done.output
    assert "a source is left out" in done.output
    assert "header: [caption, url]" in " ".join(done.output.split())
    write_config(tmp_path, sources=[good, {"name": "cc3m", "files": "cc3m.tsv", "header": ["caption", "url"], **pairs}])
    assert CliRunner().invoke(app, arguments).exit_code == 0
