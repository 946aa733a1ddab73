"""Text from outside stays text wherever it is shown: on the page, in the UI's metadata, on the terminal, in JSON-LD."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from mmdata.cli import console as consoles
from mmdata.cli.explain import show_story
from mmdata.cli.main import run
from mmdata.display import markdown, printable
from mmdata.errors import DataError, PartFailed
from mmdata.figures.charts import before_after_bars
from mmdata.figures.sheet import sample_grid
from mmdata.inspect.story import explain
from mmdata.publish.croissant import croissant, json_ld
from mmdata.report.stage import report_release
from mmdata.samples import sample_uid
from mmdata.stage import StageReport
from tests.support import workspaces
from tests.support.hostile_inputs import TEXTS
from tests.support.workspaces import Built, build, release

STEERING = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


@pytest.fixture(scope="module")
def nasty(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A release whose captions, URLs and source columns are the nasty texts."""
    honest, patch = workspaces._sample, pytest.MonkeyPatch()

    def sample(number: int) -> dict:
        text = TEXTS[number % len(TEXTS)]
        url = f"https://example.org/{number}?{text}"
        return {
            **honest(number),
            **{"uid": sample_uid(url, text), "url": url, "caption": text, "n_chars": len(text)},
            "extra": json.dumps({text: text, "LICENSE": text}),
        }

    patch.setattr(workspaces, "_sample", sample)
    built = build(str(tmp_path_factory.mktemp("nasty") / "w"), {"web-000000": range(len(TEXTS))})
    release(built)
    patch.undo()
    return built


@pytest.fixture(scope="module")
def page(nasty: Built) -> str:
    folder = nasty.workspace.release_dir(str(nasty.workspace.latest()))
    report_release(folder)
    return (folder / "report.html").read_text(encoding="utf-8")


def test_the_page_shows_texts_and_obeys_none(page: str) -> None:
    assert page.count("<script") == 0
    assert not re.search(r"<(iframe|svg/onload|math|a href=.javascript)", page)
    assert not re.search(r"<[^>]* on(error|load|mouseover|focus)=", re.sub(r'"[^"]*"', '""', page))
    assert not STEERING.search(page)
    assert "default-src 'none'" in page


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no Chromium here")
@pytest.mark.parametrize("with_policy", [True, False], ids=["with its policy", "without its policy"])
def test_no_script_runs_in_a_browser(page: str, tmp_path: Path, with_policy: bool) -> None:
    """The escaping must hold without the page's Content-Security-Policy, too."""
    if not with_policy:
        page, taken = re.subn(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
        assert taken == 1
    found = [dom(tmp_path, page), dom(tmp_path, page.replace("</body>", f"{TEXTS[0]}</body>"))]
    assert "data-ran" not in opening(found[0])
    assert ("data-ran" in opening(found[1])) == (not with_policy), "the trap works, and the policy holds"


def dom(folder: Path, page: str) -> str:
    (folder / "page.html").write_text(page, encoding="utf-8")
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    command += ["--virtual-time-budget=2000", "--dump-dom", (folder / "page.html").as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def opening(found: str) -> str:
    assert "Release" in found
    return found[: found.index("<head")]


def test_the_story_of_a_sample_on_a_terminal(nasty: Built) -> None:
    """What `mmdata explain` prints of every sample, colours on: rich's own sequences only."""
    for uid in nasty.captions:
        out = io.StringIO()
        console = consoles.SafeConsole(
            file=out, force_terminal=True, width=200, color_system="standard", highlight=False
        )
        show_story(console, explain(nasty.corpus, nasty.workspace, uid))
        assert not steers(out.getvalue())


def steers(text: str) -> bool:
    """Whether anything but rich's colours is in it."""
    return (
        STEERING.search(re.sub(r"\x1b\[[0-9;]*m", "", text)) is not None
        or re.search(r"\x1b\[(?![01;]*m)", text) is not None
    )


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_every_line_of_a_build_on_a_terminal(text: str) -> None:
    out = io.StringIO()
    console = consoles.SafeConsole(file=out, force_terminal=False, width=100_000, highlight=False)
    progress = consoles.BuildProgress(console)
    progress.started("media", text)
    progress.waits("media", text, text)
    progress.failed("media", text, DataError(text))
    progress.failed("media", "p", PartFailed("p", "media", {text: text}))
    progress.finished(StageReport("media", text, {"rows": 1}, {text: 3}))
    console.print(consoles.table(text, ("a", "b"), [(text, text)]))
    console.print(consoles.facts(text, {text: text}))
    console.print(f"unreadable: {text}: {text}", markup=False)
    assert not STEERING.search(out.getvalue())
    assert printable(text).splitlines()[0][:40].strip() in out.getvalue(), "and it is shown, markup and all"


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_an_error_on_a_terminal(text: str, tmp_path: Path) -> None:
    """The very command, with a file whose name and content are the text."""
    (tmp_path / "corpus.yaml").write_text(json.dumps({"workspace": "w", "sources": [], text[:100]: text}))
    ended = run_mmdata("status", "-c", str(tmp_path / "corpus.yaml"))
    assert ended.startswith("error: ")
    assert not STEERING.search(ended)


def run_mmdata(*arguments: str) -> str:
    """What a command that ends with an error writes to stderr."""
    said, before = io.StringIO(), sys.argv
    sys.argv = ["mmdata", *arguments]
    try:
        with contextlib.redirect_stderr(said), pytest.raises(SystemExit):
            run()
    finally:
        sys.argv = before
    return said.getvalue()


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_metadata_of_the_ui(text: str) -> None:
    import dagster as dg

    from pipelines.metadata import to_metadata
    from pipelines.stage_run import dagster_failure

    report = StageReport(
        "media", "p", {"rows": 1}, {text: 1}, tables={"t": [{"caption": text}]}, images={text: b"\x89PNG"}
    )
    for value in to_metadata(report).values():
        if isinstance(value, dg.TableMetadataValue):
            cells = [cell for record in value.records for cell in record.data.values() if isinstance(cell, str)]
            assert not any(STEERING.search(cell) for cell in cells)
        if isinstance(value, dg.MarkdownMetadataValue):
            assert re.fullmatch(r"!\[[\w ]*\]\(data:image/png;base64,[\w+/=]*\)", value.md_str)
    failure = dagster_failure(PartFailed("p", "media", {text: text}))
    assert not STEERING.search(str(failure.description))


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_a_cell_of_markdown_is_one_cell_of_text(text: str) -> None:
    shown = markdown(text)
    assert "\n" not in shown
    assert not STEERING.search(shown)
    bare = re.sub(r"\\[\\`*_\[\]()!|~#]", "", shown)
    assert not re.search(r"[`*\[\]!|~<>]|://|www\.", bare)


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_json_ld_stays_in_its_script(text: str) -> None:
    shards = [{"name": "a.tar", "sha256": "0", "bytes": 1, "samples": 1}]
    described = croissant({"release_id": "r", "scorer": {"name": text}, "shards": shards, "signatures": {text: 1}})
    data = json_ld(described).decode()
    assert json.loads(data) == described
    assert not re.search("[<>&\u2028\u2029]", data)


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_pictures_of_the_ui_draw_it(text: str) -> None:
    drawn = before_after_bars({text: 3}, {text: 1}, text).picture()
    names = {element.tag.rpartition("}")[2] for element in ElementTree.fromstring(drawn).iter()}
    assert names == {"svg", "style", "rect", "text"}, "no element of the text's own"
    assert not STEERING.search(drawn.decode())
    assert sample_grid([b""], [text], [0.5])


def test_letters_and_marks_of_all_scripts_stay_as_they_are() -> None:
    text = "été 海の写真 привет שלום مرحبا हिन्दी می\u200cخواهم 👩\u200d🚀 👍 a\u0301 a\u00a0b\u3000c\nd"  # noqa: RUF001
    assert printable(text) == text
    assert all(unicodedata.category(char)[0] != "C" for char in printable("".join(TEXTS)) if char != "\n")


def test_every_console_of_the_commands_is_a_safe_one() -> None:
    assert isinstance(consoles.console(), consoles.SafeConsole)
    found = [
        str(path)
        for path in (Path(consoles.__file__).parent).glob("*.py")
        if re.search(r"(?<!Safe)Console\((?!\))", path.read_text()) and path.name != "console.py"
    ]
    assert found == []
    assert issubclass(consoles.SafeConsole, Console)
