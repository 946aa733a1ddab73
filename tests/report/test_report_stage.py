"""The HTML report: whole, self-contained, and safe with whatever captions say."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from urllib.parse import unquote

import polars as pl
import pytest
from PIL import Image

from mmdata.display import shown as readable
from mmdata.errors import UserError
from mmdata.instruct.stage import write_instructions
from mmdata.report.model_captions import MAX_IN_REPORT
from mmdata.report.stage import DEMO_NOTE, report_release
from tests.support import modalities, tiny_release, workspaces
from tests.support.tiny_release import Tiny

VOID = {"meta", "img", "br", "link"}


class Page(HTMLParser):
    """Collects elements, and checks that they nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    made = tiny_release.build(tmp_path_factory.mktemp("report"), samples=160)
    write_instructions(made.corpus, made.workspace)
    tiny_release.publish(made)
    return made


@pytest.fixture(scope="module")
def html(tiny: Tiny) -> str:
    report_release(tiny.folder)
    return (tiny.folder / "report.html").read_text()


def test_the_page_is_well_formed_and_has_its_sections(html: str) -> None:
    page = Page(html)
    assert page.open == []
    ids = {attrs["id"] for _, attrs in page.tags if "id" in attrs}
    assert ids >= {"funnel", "scores", "samples", "balance", "instructions", "shards", "use", "config"}
    assert {attrs["href"] for tag, attrs in page.tags if tag == "a"} <= {f"#{name}" for name in ids}


def test_nothing_is_loaded_from_anywhere(html: str) -> None:
    page = Page(html)
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe", "object", "embed", "base", "form"})
    for tag, attrs in page.tags:
        for name in ("src", "href", "action", "srcset", "data"):
            value = attrs.get(name) or "#"
            assert value.startswith(("data:image/jpeg;base64,", "#")), (tag, name, value[:60])
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)
    assert style and "url(" not in style[1] and "@import" not in style[1]
    assert "default-src 'none'" in html


def test_captions_from_outside_are_text_and_never_markup(html: str) -> None:
    assert "<script" not in html.lower()
    assert "<b>bold</b>" not in html
    page = Page(html)
    assert not [attrs for _, attrs in page.tags if any(name.startswith("on") for name in attrs)]
    shown = "".join(page.text)
    assert "<script>alert('caption')</script> a red circle" in shown


def test_evil_config_scorer_and_reasons_are_escaped(tmp_path: Path) -> None:
    tiny = tiny_release.build(tmp_path, samples=16)
    write_instructions(tiny.corpus, tiny.workspace)
    tiny_release.publish(tiny)
    evil = "</pre></style><script>alert(1)</script><img src=x onerror=alert(1)>"
    manifest = json.loads((tiny.folder / "manifest.json").read_bytes())
    manifest["scorer"]["name"] = manifest["config"]["workspace"] = manifest["parent"] = manifest["digest"] = evil
    manifest["refused_parts"] = {evil: evil}
    manifest["shards"][0]["name"] = evil
    (tiny.folder / "manifest.json").write_text(json.dumps(manifest))
    report_release(tiny.folder)
    text = (tiny.folder / "report.html").read_text()
    assert "<script" not in text and "<img src=x" not in text
    assert Page(text).open == []


def test_captions_of_a_trained_model_stand_beside_their_pictures(tiny: Tiny, tmp_path: Path) -> None:
    held_out = sorted(uid for uid, split in tiny.split.items() if split == "validation")
    evil = "<script>alert(1)</script>"
    gone = {"uid": "f" * 32, "expected": "forgotten", "generated": "forgotten", "prompt": ""}
    answers = [
        {"uid": uid, "prompt": "", "expected": evil, "generated": f"a boat {n}", "with_other_picture": evil}
        for n, uid in enumerate(held_out)
    ]
    stage = tmp_path / "my run" / "joint"
    stage.mkdir(parents=True)
    evaluation = {"release_id": tiny.folder.name, "step": 9, "metrics": {"loss": 1.5}, "answers": [gone, *answers]}
    (stage / "metrics.json").write_text(json.dumps(evaluation))
    (stage / "captions.html").write_text("the page")
    report_release(tiny.folder, [stage.parent])
    text = (tiny.folder / "report.html").read_text()
    report_release(tiny.folder)
    assert 'id="captions"' not in (tiny.folder / "report.html").read_text(), "without models there is no section"
    page = Page(text)
    assert page.open == []
    assert "<script" not in text.lower() and "forgotten" not in text
    section = text.partition('<h2 id="captions">')[2].partition("<h2")[0]
    images = re.findall(r'<img src="data:image/jpeg;base64,[^"]+" alt="([^"]+)"', section)
    assert images == ["&lt;script&gt;alert(1)&lt;/script&gt;"] * min(len(answers), MAX_IN_REPORT)
    assert "a boat 0" in section and "1.500" in section
    (link,) = [str(attrs["href"]) for tag, attrs in page.tags if tag == "a" and not str(attrs["href"]).startswith("#")]
    assert (Path(tiny.folder.path) / unquote(link)).read_text() == "the page"


def test_pictures_are_small_jpegs_made_anew(html: str) -> None:
    uris = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', html)
    assert len(uris) > 50
    for uri in set(uris):
        picture = Image.open(io.BytesIO(base64.b64decode(uri)))
        assert picture.format == "JPEG" and max(picture.size) <= 168


def test_the_report_is_bounded_and_the_same_each_time(tiny: Tiny, html: str) -> None:
    assert len(html) < 3_000_000
    report_release(tiny.folder)
    assert (tiny.folder / "report.html").read_text() == html


def test_the_demo_scorer_is_named_as_what_it_is(html: str) -> None:
    shown = " ".join("".join(Page(html).text).split())
    assert "demo (small offline scorer)" in shown
    assert DEMO_NOTE in shown


def test_numbers_of_page_and_report_agree(tiny: Tiny, html: str) -> None:
    report = report_release(tiny.folder)
    assert report.counts["rows"] == 160
    assert report.counts["kept"] == len(tiny.split)
    shown = "".join(Page(html).text)
    for name in ("rows", "kept", "released", "instructions"):
        assert f"{report.counts[name]:,}" in shown
    assert report.paths["report"].endswith("report.html")
    assert all(len(data) < 20_000 for data in report.images.values()) and report.images


def test_every_task_and_form_is_shown(html: str) -> None:
    shown = "".join(Page(html).text)
    for word in (
        "caption",
        "match",
        "reference_image",
        "text_to_image",
        '"conversations"',
        '"messages"',
        '"input_image"',
    ):
        assert word in shown


def test_an_old_release_without_its_slices_still_has_a_report(tmp_path: Path) -> None:
    tiny = tiny_release.build(tmp_path, samples=24)
    write_instructions(tiny.corpus, tiny.workspace)
    tiny_release.publish(tiny)
    shutil.rmtree(tmp_path / "parts")
    report_release(tiny.folder)
    assert "picture not stored" in (tiny.folder / "report.html").read_text()


@pytest.mark.parametrize("samples", [0, 1])
def test_an_empty_release_has_a_report(tmp_path: Path, samples: int) -> None:
    tiny = tiny_release.build(tmp_path, samples=samples)
    write_instructions(tiny.corpus, tiny.workspace)
    tiny_release.publish(tiny)
    assert report_release(tiny.folder).counts["rows"] == samples
    assert Page((tiny.folder / "report.html").read_text()).open == []


def test_the_named_scores_of_a_release_are_drawn_and_told(tmp_path: Path) -> None:
    tiny = tiny_release.build(tmp_path, samples=20)
    path = tiny.folder / "selection.parquet"
    selection = pl.read_parquet(path)
    values = pl.Series("score_loss", [None, *(-number / 8 for number in range(1, len(selection)))], dtype=pl.Float32)
    selection.with_columns(values).write_parquet(path)
    write_instructions(tiny.corpus, tiny.workspace)
    tiny_release.publish(tiny)
    report = report_release(tiny.folder)
    html = (tiny.folder / "report.html").read_text()
    page = Page(html)
    assert page.open == []
    assert {"Scores", "least that is kept", "loss"} <= {text.strip() for text in page.text}
    assert "Scores loss" in html
    assert "score loss" in report.images


def test_without_a_manifest_the_error_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no release there.*Remedy: `mmdata build`"):
        report_release(tmp_path)


def test_the_snippets_of_the_page_run(tiny: Tiny, html: str) -> None:
    blocks = [
        "".join(Page(block).text)
        for block in re.findall(r"<pre>(.*?)</pre>", html[html.index('id="use"') :], re.DOTALL)
    ]
    compile(blocks[1], "datasets", "exec")
    namespace: dict[str, object] = {}
    exec(blocks[0], namespace)
    exec(blocks[2], namespace)
    assert namespace["caption"] in tiny.caption.values()
    assert namespace["jpeg"] in tiny.picture.values()


def test_examples_of_clips_show_their_frames_and_play_their_sound(tmp_path: Path) -> None:
    built = modalities.build(tmp_path, instruct={"tasks": ["step_order", "audio_visual_match", "transcribe"]})
    release = workspaces.release(built)
    report_release(built.workspace.release_dir(release))
    html = (built.workspace.release_dir(release) / "report.html").read_text()
    examples = html[html.index('<div class="chats">') : html.index('<h2 id="shards">')]
    assert examples.count('alt="frame 4"') == 4
    assert examples.count('alt="frame 5"') == 2
    assert (
        examples.count("<audio controls") == 3
    )  # the captions are English, and so are the questions whose answers they are
    assert "not readable" not in examples


def alternatives(text: str) -> list[str]:
    """The alternative texts of all pictures of a page, in its order."""
    return [attrs.get("alt") or "" for tag, attrs in Page(text).tags if tag == "img"]


def test_every_picture_says_what_it_shows(tiny: Tiny, html: str) -> None:
    shown = alternatives(html)
    assert len(shown) > 50
    assert "" not in shown
    captions = {shorten(caption) for caption in map(readable, tiny.caption.values())}
    assert len([text for text in shown if text in captions]) > 50


def shorten(caption: str) -> str:
    return caption if len(caption) <= 155 else caption[:147] + "..."


def test_an_alternative_text_is_escaped_and_bounded(tmp_path: Path) -> None:
    captions = ['"><script>alert(1)</script>', "word " * 400, "x" * 5000]
    built = modalities.build(tmp_path)
    pictures = [modalities.picture(number) | {"caption": caption} for number, caption in enumerate(captions)]
    part = built.workspace.part("web-000000")
    modalities.finish(built, part, pictures)
    release = workspaces.release(built)
    report_release(built.workspace.release_dir(release))
    page = (built.workspace.release_dir(release) / "report.html").read_text()
    shown = set(alternatives(page))
    assert captions[0] in shown, "escaped in the page, and so itself after parsing"
    assert "<script>" not in page
    assert max(map(len, shown)) < 200
    frames = {text.removeprefix("frame 1 of: ") for text in shown if text.startswith("frame 1 of: ")}
    assert frames
    assert frames <= set(built.captions.values())


def test_nothing_of_the_style_is_wider_than_a_phone() -> None:
    css = (resources.files("mmdata.report") / "templates" / "report.css").read_text(encoding="utf-8")
    assert re.findall(r"minmax\(\d+px", css) == [], (
        "a column is at most as wide as the page: minmax(min(…px, 100%), 1fr)"
    )
    assert [width for width in re.findall(r"(?<!max-)width: *(\d+)px", css) if int(width) > 320] == []
    assert re.search(r"code[^{]*\{ overflow-wrap: anywhere; \}", css), "a SHA-256 has no place to break"


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("width_px", [320, 390, 1280])
def test_the_page_is_not_wider_than_its_window(tmp_path: Path, width_px: int) -> None:
    built = modalities.build(tmp_path / "workspace", instruct={"tasks": ["step_order", "transcribe", "caption"]})
    release = workspaces.release(built)
    report_release(built.workspace.release_dir(release))
    page = (built.workspace.release_dir(release) / "report.html").read_text()
    (tmp_path / "page.html").write_text(re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page))
    script = "const page = frames[0].document.documentElement; document.title = page.scrollWidth - page.clientWidth"
    frame = f'<iframe src="page.html" style="width:{width_px}px"></iframe>'
    (tmp_path / "window.html").write_text(f"<title></title>{frame}<script>onload = () => {{ {script} }}</script>")
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    command += ["--virtual-time-budget=5000", "--dump-dom", (tmp_path / "window.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert "<title>0</title>" in done.stdout
