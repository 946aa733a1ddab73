"""Whatever damages a finished corpus, the message names a command, and that command makes the corpus whole again.

Each test damages one file of a released corpus, takes the command out of the message, runs it, and verifies the
release. The corpus is real: pictures from a server on loopback, and the packaged scorer.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from mmdata.cli.main import app
from mmdata.config.load import load_corpus
from mmdata.publish.verify import verify_release
from mmdata.workspace.layout import Workspace
from pipelines import headless
from tests.support.hostile_server import HostileServer

PICTURES = 12
COMMAND = re.compile(r"`mmdata ([^`]+)`")

Damage = Callable[[Path], None]
"""Damages one file."""


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    """Change one byte; the length stays."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x55
    path.write_bytes(content)


def delete(path: Path) -> None:
    path.unlink()


def empty_object(path: Path) -> None:
    path.write_text("{}")


class Corpus:
    """A released corpus in a folder."""

    def __init__(self, folder: Path) -> None:
        self.config = folder / "corpus.yaml"
        self.workspace = Workspace(load_corpus(self.config).workspace)
        self.root = Path(self.workspace.root.path)

    def run(self, command: str) -> str:
        """Run a command of mmdata; its output, and its error with all remedies."""
        arguments = shlex.split(command)
        if arguments[0] in ("build", "status"):
            arguments += ["-c", str(self.config)]
        done = CliRunner().invoke(app, arguments, env={"MMDATA_CONFIG": str(self.config)})
        assert done.exception is None or type(done.exception) is SystemExit or "Remedy" in str(done.exception), (
            done.exception
        )
        return f"{done.output}\n{done.exception or ''}"

    def file(self, pattern: str) -> Path:
        return next(iter(sorted(self.root.glob(pattern))))

    def is_whole(self) -> bool:
        """Whether the latest release verifies, and a further build has nothing to do."""
        report = verify_release(self.root)
        return report.counts["samples"] == PICTURES and "failed" not in self.run("build")


@pytest.fixture(scope="module")
def web() -> Iterator[HostileServer]:
    with HostileServer() as server:
        yield server


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory, web: HostileServer) -> Path:
    folder = tmp_path_factory.mktemp("released")
    (folder / "inbox").mkdir()
    urls = [web.url(f"/jpg/{number}") for number in range(PICTURES)]
    rows = {"URL": urls, "TEXT": [f"picture number {number} of the sea" for number in range(PICTURES)]}
    pq.write_table(pa.table(rows), folder / "inbox" / "a.parquet")
    settings: dict[str, Any] = {
        "workspace": "./workspace",
        "sources": [{"name": "web", "kind": "laion", "files": "inbox/*.parquet", "slice_rows": 6}],
        "download": {"allow_hosts": ["127.0.0.1"]},
        "score": {"model": "demo"},
        "select": {"filter": {"top_fraction": None}, "dedup": {"phash_bits": None, "semantic_eps": None}},
        "shards": {"validation_fraction": 0.2},
        "engine": {"workers": 1},
    }
    (folder / "corpus.yaml").write_text(yaml.safe_dump(settings))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(headless, "open_instance", lambda workspace: dg.DagsterInstance.ephemeral())
        corpus = Corpus(folder)
        corpus.run("build")
        assert corpus.is_whole()
    return folder


@pytest.fixture
def corpus(released: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Corpus:
    monkeypatch.setattr(headless, "open_instance", lambda workspace: dg.DagsterInstance.ephemeral())
    return Corpus(Path(shutil.copytree(released, tmp_path / "corpus")))


@pytest.mark.parametrize("damage", [cut, flip, delete])
def test_a_damaged_shard_of_the_latest_release_is_written_again(corpus: Corpus, damage: Damage) -> None:
    shard = corpus.file("shards/*.tar")
    before = shard.read_bytes()
    damage(shard)
    message = corpus.run("verify latest")
    assert shard.name in message
    assert COMMAND.findall(message) == ["build --redo release"]
    corpus.run("build --redo release")
    assert shard.read_bytes() == before
    assert corpus.is_whole()


def test_a_plain_build_writes_a_lost_shard_again(corpus: Corpus) -> None:
    shards = sorted(corpus.root.glob("shards/*.tar"))
    manifest = corpus.file("releases/*/manifest.json").read_bytes()
    before = shards[0].read_bytes()
    shards[0].unlink()
    corpus.run("build")
    assert shards[0].read_bytes() == before
    assert corpus.file("releases/*/manifest.json").read_bytes() == manifest
    assert corpus.is_whole()


@pytest.mark.parametrize(
    ("command", "damage"),
    [("build", cut), ("status", cut), ("verify latest", cut), ("releases", cut), ("build", empty_object)],
)
def test_a_damaged_manifest_of_the_latest_release_is_no_dead_end(corpus: Corpus, command: str, damage: Damage) -> None:
    release_id = corpus.workspace.latest()
    damage(corpus.file("releases/*/manifest.json"))
    message = corpus.run(command)
    assert "manifest.json" in message
    assert "build --redo release" in COMMAND.findall(message)
    corpus.run("build --redo release")
    assert corpus.workspace.latest() == release_id
    assert corpus.is_whole()


def test_a_manifest_that_was_deleted_is_written_again(corpus: Corpus) -> None:
    release_id = corpus.workspace.latest()
    delete(corpus.file("releases/*/manifest.json"))
    corpus.run("build")
    assert corpus.workspace.latest() == release_id
    assert corpus.is_whole()


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *[("index.parquet", damage) for damage in (cut, flip, delete)],
        *[(name, flip) for name in ("selection.parquet", "rates.json", "shards.json", "instruct-chat-train.jsonl")],
    ],
)
def test_a_damaged_file_of_the_latest_release_is_written_again(corpus: Corpus, name: str, damage: Damage) -> None:
    release_id = corpus.workspace.latest()
    file = corpus.file(f"releases/*/{name}")
    before = file.read_bytes()
    damage(file)
    message = corpus.run("verify latest")
    assert name in message
    corpus.run(COMMAND.findall(message)[0])
    assert file.read_bytes() == before
    assert corpus.workspace.latest() == release_id
    assert corpus.is_whole()


@pytest.mark.parametrize("damage", [flip, cut, delete])
def test_a_media_tar_that_changed_is_not_packed_and_is_fetched_again(corpus: Corpus, damage: Damage) -> None:
    tar = corpus.file("parts/*/media/*.tar")
    damage(tar)
    for shard in corpus.root.glob("shards/*.tar"):
        shard.unlink()
    message = corpus.run("build")
    assert tar.name in message
    (command,) = set(COMMAND.findall(message)) - {"build --redo release"}
    assert re.fullmatch(r"build --redo web-\d{6}:media:\d{4}", command)
    corpus.run(command)
    assert corpus.is_whole()


@pytest.mark.parametrize("stage", ["rows", "features"])
@pytest.mark.parametrize("damage", [cut, delete])
def test_a_damaged_table_of_a_part_is_made_again(corpus: Corpus, stage: str, damage: Damage) -> None:
    damage(corpus.file(f"parts/*/{stage}/*.parquet"))
    settings = yaml.safe_load(corpus.config.read_text()) | {"seed": 5}  # a new release, which reads every table
    corpus.config.write_text(yaml.safe_dump(settings))
    message = corpus.run("build")
    command = next(command for command in COMMAND.findall(message) if "--redo web" in command)
    corpus.run(command)
    assert corpus.is_whole()


@pytest.mark.parametrize(
    ("name", "damage"),
    [("rows.json", empty_object), ("media.json", cut), ("rows/0000.json", empty_object), ("media/0001.json", delete)],
)
def test_a_damaged_stamp_costs_no_traceback_and_nothing_is_fetched_again(
    corpus: Corpus, web: HostileServer, name: str, damage: Damage
) -> None:
    stamp = corpus.file(f"parts/*/{name}")
    before = stamp.read_bytes()
    damage(stamp)
    assert "Traceback" not in corpus.run("status")
    requests = web.hits.total()
    corpus.run("build")
    if "/" in name:  # the part is whole without the stamp of a slice; whoever needs the stamp names the command
        corpus.run(f"build --redo {stamp.parent.parent.name}:{name.split('/', maxsplit=1)[0]}:{stamp.stem}")
    assert corpus.is_whole()
    assert web.hits.total() == requests
    assert stamp.read_bytes() == before or stamp.exists()


@pytest.mark.parametrize("damage", [cut, empty_object])
def test_a_damaged_catalogue_is_written_again_after_it_was_deleted(corpus: Corpus, damage: Damage) -> None:
    catalogue = corpus.file("catalog.json")
    damage(catalogue)
    message = corpus.run("build")
    assert f"{catalogue}: " in message
    assert "Remedy: delete it, then `mmdata build`" in message
    catalogue.unlink()
    corpus.run("build")
    assert corpus.is_whole()


def test_a_release_made_from_other_settings_is_not_redone_but_made_anew(corpus: Corpus) -> None:
    settings = yaml.safe_load(corpus.config.read_text()) | {"seed": 5}
    corpus.config.write_text(yaml.safe_dump(settings))
    message = corpus.run("build --redo release")
    assert "its parts or settings have changed since" in message
    corpus.run("build")
    assert corpus.is_whole()


def test_a_latest_that_names_no_release_is_repaired_by_a_build(corpus: Corpus) -> None:
    release_id = corpus.workspace.latest()
    corpus.file("releases/latest").write_text("0123")
    corpus.run("build")
    assert corpus.workspace.latest() == release_id
    assert corpus.is_whole()


@pytest.mark.parametrize("name", ["rates.json", "clusters.npz"])
def test_a_damaged_file_of_the_parent_does_not_stop_the_next_release(corpus: Corpus, name: str) -> None:
    cut(corpus.file(f"releases/*/{name}"))
    settings = yaml.safe_load(corpus.config.read_text())
    settings["select"]["filter"]["min_words"] = 2
    corpus.config.write_text(yaml.safe_dump(settings))
    message = corpus.run("build")
    if "Remedy" in message:
        assert "Remedy: delete it" in message or "Remedy: delete the file" in message
        corpus.file(f"releases/*/{name}").unlink()
        corpus.run("build")
    assert corpus.is_whole()
