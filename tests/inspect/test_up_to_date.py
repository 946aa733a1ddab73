"""A build that has nothing to do is known without running one; whatever would make it do or say something counts."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mmdata.config.load import load_corpus
from mmdata.inspect.up_to_date import up_to_date_release
from mmdata.workspace.layout import Workspace
from tests.support.settled import make_settled, write_config


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("settled")
    make_settled(folder)
    return folder


def check(folder: Path) -> str | None:
    corpus = load_corpus(folder / "corpus.yaml")
    return up_to_date_release(corpus, Workspace(corpus.workspace))


def test_the_latest_release_stands_and_nothing_is_written(settled: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in settled.rglob("*") if path.is_file()}
    assert check(settled) == Workspace(str(settled / "workspace")).latest()
    assert {path: path.stat().st_mtime_ns for path in settled.rglob("*") if path.is_file()} == before


def change_source(folder: Path) -> None:
    path = folder / "inbox" / "a.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)


def add_source(folder: Path) -> None:
    shutil.copy(folder / "inbox" / "a.parquet", folder / "inbox" / "b.parquet")


def touch_source(folder: Path) -> None:
    os.utime(folder / "inbox" / "a.parquet", (1, 1))  # a build would note the new time


def change_setting(folder: Path) -> None:
    write_config(folder, shards={"shard_mb": 0.04, "validation_fraction": 0.1})


def set_opt_out(folder: Path) -> None:
    (folder / "out.txt").write_text("https://example.org/3.jpg\n")
    write_config(folder, optout=[{"path": str(folder / "out.txt"), "holds": "url"}])


def delete_shard(folder: Path) -> None:
    next((folder / "workspace" / "shards").glob("*.tar")).unlink()


def cut_shard(folder: Path) -> None:
    path = next((folder / "workspace" / "shards").glob("*.tar"))
    path.write_bytes(path.read_bytes()[:-512])


def delete_report(folder: Path) -> None:
    next((folder / "workspace" / "releases").glob("*/report.html")).unlink()


def delete_sources(folder: Path) -> None:
    shutil.rmtree(folder / "inbox")  # a build raises the error


def set_part_stamp(folder: Path, **changes: object) -> None:
    workspace = Workspace(str(folder / "workspace"))
    (part,) = workspace.catalog().parts
    stamp = workspace.part_stamp(part, "media")
    assert stamp is not None
    workspace.write_part_stamp(part, "media", replace(stamp, **changes))  # type: ignore[arg-type]


def make_retry_due(folder: Path) -> None:
    set_part_stamp(folder, next_retry_at="2020-01-01T00:00:00+00:00")


def refuse_part(folder: Path) -> None:
    set_part_stamp(folder, accepted=False, reason="a person said so")


def damage_draft(folder: Path) -> None:
    (folder / "workspace" / "selection.json").write_text("{")


@pytest.mark.parametrize(
    "change",
    [
        change_source,
        add_source,
        touch_source,
        change_setting,
        set_opt_out,
        delete_shard,
        cut_shard,
        delete_report,
        delete_sources,
        make_retry_due,
        refuse_part,
        damage_draft,
    ],
)
def test_whatever_a_build_would_do_or_say_counts(settled: Path, tmp_path: Path, change: Callable[[Path], None]) -> None:
    folder = tmp_path / "corpus"
    shutil.copytree(settled, folder)
    workspace = Workspace(str(folder / "workspace"))
    catalog = workspace.catalog()
    moved = {path.replace(str(settled), str(folder)): entry for path, entry in catalog.files.items()}
    parts = {name: replace(p, path=p.path.replace(str(settled), str(folder))) for name, p in catalog.parts.items()}
    workspace.write_catalog(type(catalog)(files=moved, parts=parts))
    assert check(folder) is not None
    change(folder)
    assert check(folder) is None
