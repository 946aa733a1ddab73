"""The code that pages and reports show runs on a release of pictures, clips, sound and texts."""

from __future__ import annotations

import html
import re
import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mmdata.cli.main import app
from mmdata.report.stage import report_release
from mmdata.workspace.layout import Catalog, Part, Workspace
from tests.support import modalities, workspaces
from tests.support.workspaces import SELECT_ALL, Built, release

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    path.relative_to(ROOT).as_posix(): blocks
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    if path.name != "own-checkpoints.md"  # needs an exported model: tests/training/export/test_llava.py
    and (blocks := re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE))
}
REPEATED = {**SELECT_ALL, "oversample": {"threshold": 1.0, "max_repeats": 3}}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A release of every signature, with copies. Only to be read."""
    built = modalities.build(tmp_path_factory.mktemp("mixed") / "the workspace", select=REPEATED)
    release(built)
    return built


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A release of pictures alone. Only to be read."""
    built = workspaces.build(str(tmp_path_factory.mktemp("pictures")), {"web-000000": range(20)})
    release(built)
    return built


def only(root: Path, source: str, samples: list[dict[str, Any]]) -> Built:
    """A release of one source of the mixed corpus."""
    built = Built(modalities.corpus_at(root), Workspace(root))
    part = Part(f"{source}-000000", source, "inbox/x", 0, len(samples), source)
    built.workspace.write_catalog(Catalog(parts={part.name: part}))
    modalities.finish(built, part, samples)
    release(built)
    return built


def run(blocks: list[str]) -> dict[str, Any]:
    """Run blocks of code one after the other, as a reader does; those for a package that is missing are left out."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks:
        if "megatron" in block and find_spec("megatron") is None:
            continue
        exec(compile(block, "shown code", "exec"), namespace)
    return namespace


def blocks_of_report(built: Built) -> list[str]:
    """The code under “Use it” of the report."""
    folder = built.workspace.release_dir(str(built.workspace.latest()))
    report_release(folder)
    page = (folder / "report.html").read_text(encoding="utf-8")
    section = page[page.index('id="use"') : page.index('id="config"')]
    return [html.unescape(block) for block in re.findall(r"<pre>(.*?)</pre>", section, re.DOTALL)]


@pytest.mark.parametrize("kind", ["mixed", "pictures"])
@pytest.mark.parametrize("page", PAGES)
def test_the_code_of_a_page_runs(
    page: str, kind: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: Built = request.getfixturevalue(kind)
    (tmp_path / "demo").mkdir()
    for name in ("workspace", "demo/workspace"):
        (tmp_path / name).symlink_to(built.workspace.root.path)
    monkeypatch.chdir(tmp_path)
    namespace = run(PAGES[page])
    assert namespace["caption"] in built.captions.values()


def test_the_pages_that_show_how_to_read_a_release_are_run() -> None:
    assert {"README.md", "docs/formats.md", "docs/tutorial.md"} <= set(PAGES)


@pytest.mark.parametrize("kind", ["mixed", "pictures"])
def test_the_code_of_a_report_runs(kind: str, request: pytest.FixtureRequest) -> None:
    built: Built = request.getfixturevalue(kind)
    *code, command = blocks_of_report(built)
    assert len(code) == 3
    namespace = run(code)
    assert namespace["caption"] in built.captions.values()
    assert namespace["row"]["txt"] in built.captions.values()
    assert namespace["jpeg"]
    done = CliRunner().invoke(app, shlex.split(command)[1:])
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("source", ["txt", "wav", "how"])
def test_the_code_of_a_report_runs_where_there_are_no_pictures(source: str, tmp_path: Path) -> None:
    samples = {
        "txt": [modalities.text(number) for number in range(8)],
        "wav": [modalities.sound(number) for number in range(8)],
        "how": [modalities.clip(0, number) for number in range(5)],
    }[source]
    built = only(tmp_path, source, samples)
    *code, _ = blocks_of_report(built)
    namespace = run(code)
    assert namespace["caption"] in built.captions.values()
    assert bool(namespace["sound"]) == (source in ("wav", "how"))


def test_the_report_of_records_with_embedded_media_shows_no_code_to_look_them_up(tmp_path: Path) -> None:
    built = workspaces.build(str(tmp_path), {"web-000000": range(8)}, instruct={"images": "base64"})
    release(built)
    assert not any("read_member" in block for block in blocks_of_report(built))
