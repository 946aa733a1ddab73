"""Credentials of every kind, pushed through every surface: none of them shows one."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from pathlib import Path

import pytest

from mmdata.cli import console as consoles
from mmdata.cli.explain import show_story
from mmdata.cli.main import run
from mmdata.config import Corpus
from mmdata.config.load import parse_corpus
from mmdata.display import markdown, shown, without_credentials
from mmdata.errors import PartFailed, UserError
from mmdata.inspect.story import explain
from mmdata.report.stage import report_release
from mmdata.samples import sample_uid
from mmdata.stage import StageReport
from mmdata.web.failures import FetchError, as_fetch_error
from tests.support import workspaces
from tests.support.workspaces import Built, build, release

HIDDEN = "hidden0123456789HIDDEN"
CREDENTIALS = [
    f"https://me:{HIDDEN}@host.example/x.jpg",
    f"https://{HIDDEN}@host.example/x.jpg",
    f"s3://AKIA:{HIDDEN}/+@bucket/x",
    f"https://host.example/x.jpg?X-Amz-Signature={HIDDEN}&a=1",
    f"https://host.example/x.jpg?X-Amz-Security-Token={HIDDEN}",
    f"https://host.example/x.jpg?a=1&sig={HIDDEN}",
    f"https://host.example/x?access_token={HIDDEN}",
    f"https://host.example/x#access_token={HIDDEN}",
    f"https://host.example/x?api_key={HIDDEN}",
    f"https://host.example/x?apikey={HIDDEN}",
    f"https://host.example/x?key={HIDDEN}&auth={HIDDEN}",
    f"https://host.example/x?client_secret={HIDDEN}",
    f"https://host.example/x?Password={HIDDEN}",
    f"https://host.example/x?jwt={HIDDEN}",
    f"https://storage.example/x?GoogleAccessId=a&Signature={HIDDEN}",
    f"https://blob.example/x?sv=2020&sig={HIDDEN}&se=1",
    f"hf_{HIDDEN}",
    f"sk-{HIDDEN}",
    f"ghp_{HIDDEN}ABCDEFGHIJ",
    f"Authorization: Bearer {HIDDEN}",
    f"Proxy-Authorization: Basic {HIDDEN}",
]
"""Texts that hold a secret, each in its own form."""

COUNT = len(CREDENTIALS)
ENVIRONMENT = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "WANDB_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


@pytest.mark.parametrize("text", CREDENTIALS)
def test_no_surface_shows_it(text: str) -> None:
    from pipelines.metadata import to_metadata
    from pipelines.stage_run import dagster_failure

    out = io.StringIO()
    console = consoles.SafeConsole(file=out, width=100_000, highlight=False)
    progress = consoles.BuildProgress(console)
    progress.failed("media", "p", PartFailed("p", "media", {"0000": text}))
    progress.finished(StageReport("media", "p", {"rows": 1}, {text: 2}))
    progress.waits("media", "p", text)
    console.print(consoles.facts(text, {text: text}), text)
    report = StageReport("media", "p", {"rows": 1}, {text: 1}, tables={"t": [{"url": text}]}, paths={"at": text})
    said = {
        "cleaned": without_credentials(text),
        "terminal": out.getvalue(),
        "metadata": str(to_metadata(report)),
        "failure": str(dagster_failure(PartFailed("p", "media", {"0000": text})).__dict__),
        "markdown": markdown(text),
        "fetch error": str(FetchError("http_404", text)) + FetchError("http_404", text).detail,
        "any error": as_fetch_error(OSError(text)).detail,
    }
    assert {where: words for where, words in said.items() if HIDDEN in words} == {}
    assert shown(f"see {text} there").startswith("see ")


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Built:
    """A release of rows with credentials in their URLs and columns, made with secrets all around."""
    for name in ENVIRONMENT:
        monkeypatch.setenv(name, HIDDEN)
    honest = workspaces._sample

    def sample(number: int) -> dict:
        url, caption = f"https://host.example/{number}.jpg?X-Amz-Signature={HIDDEN}", f"words {number}"
        own = {"uid": sample_uid(url, caption), "url": url, "caption": caption, "n_chars": len(caption)}
        return {**honest(number), **own, "extra": json.dumps({"from": CREDENTIALS[number % COUNT]})}

    monkeypatch.setattr(workspaces, "_sample", sample)
    download = {"proxy": f"http://me:{HIDDEN}@127.0.0.1:1", "user_agent": "mmdata"}
    built = build(str(tmp_path / "w"), {"web-000000": range(30)}, download=download)
    release(built)
    report_release(built.workspace.release_dir(str(built.workspace.latest())))
    return built


def test_manifests_stamps_reports_and_metadata_hold_none(built: Built) -> None:
    """Every file of a workspace but the tables and shards, which are the data itself."""
    root = Path(built.workspace.root.path)
    data = (".parquet", ".tar", ".jsonl", ".npz")
    read = [path for path in root.rglob("*") if path.is_file() and path.suffix not in data]
    names = {path.name for path in read}
    assert {"manifest.json", "report.html", "croissant.json", "rows.json", "media.json", "selection.json"} <= names
    assert [str(path) for path in read if HIDDEN.encode() in path.read_bytes()] == []


def test_the_story_of_a_sample_holds_none(built: Built) -> None:
    for uid in list(built.captions)[:10]:
        out = io.StringIO()
        show_story(consoles.SafeConsole(file=out, width=500), explain(built.corpus, built.workspace, uid))
        assert "host.example" in out.getvalue()
        assert HIDDEN not in out.getvalue()


@pytest.mark.parametrize(
    "wrong",
    [
        {"download": {"proxy": f"https://me:{HIDDEN}@proxy:1"}},
        {"workspace": 5, "sources": f"s3://me:{HIDDEN}@bucket"},
        {"sources": [{"name": "web", "kind": f"https://me:{HIDDEN}@host", "files": "x"}]},
    ],
)
def test_an_error_of_the_configuration_holds_none(wrong: dict) -> None:
    base = {"workspace": "w", "sources": [{"name": "web", "kind": "laion", "files": "x"}]}
    with pytest.raises(UserError) as raised:
        parse_corpus({**base, **wrong})
    assert HIDDEN not in str(raised.value)


def test_the_command_says_none_in_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ENVIRONMENT:
        monkeypatch.setenv(name, HIDDEN)
    files = f"{tmp_path}/https://me:{HIDDEN}@host/*.parquet"
    sources = [{"name": "web", "kind": "laion", "files": files}]
    (tmp_path / "corpus.yaml").write_text(json.dumps({"workspace": "w", "sources": sources}))
    monkeypatch.setattr(sys, "argv", ["mmdata", "build", "-c", str(tmp_path / "corpus.yaml")])
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said), pytest.raises(SystemExit):
        run()
    assert "no file matches" in said.getvalue()
    assert HIDDEN not in said.getvalue()


def test_nothing_of_the_environment_is_part_of_a_corpus() -> None:
    """A corpus is what its file says: no setting is filled from variables, so none ends in a manifest."""
    os.environ["MMDATA_WORKSPACE"] = HIDDEN
    try:
        corpus = Corpus(workspace="w", sources=[{"name": "web", "kind": "laion", "files": "x"}])  # type: ignore[list-item]
    finally:
        del os.environ["MMDATA_WORKSPACE"]
    assert HIDDEN not in corpus.model_dump_json()


@pytest.mark.parametrize(
    "text",
    [
        "https://host/a.jpg?w=100&keyword=cat&monkey=1",
        "https://host/basic-training/x?signal=1",
        "a basic rule, and the bearer of news",
        "https://host/@user/photo",
        "sk-8 shoes at the half-pipe",
    ],
)
def test_what_only_looks_like_a_secret_stays(text: str) -> None:
    assert shown(text) == text
