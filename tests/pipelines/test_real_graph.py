"""The graph over the real stages: the small demo, served on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from mmdata.config import Corpus
from mmdata.config.load import load_corpus
from mmdata.demo.demo_folder import make_demo
from mmdata.demo.demo_summary import summarise
from mmdata.demo.web_server import DemoServer
from mmdata.inspect.story import explain
from mmdata.publish.verify import verify_release
from mmdata.releases.draft import read_draft
from mmdata.storage.tables import read_table
from mmdata.workspace.layout import Workspace
from pipelines import headless
from pipelines.headless import build

ROWS = 240


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, Corpus, Workspace]]:
    monkeypatch.setattr(headless, "open_instance", lambda workspace: dg.DagsterInstance.ephemeral())
    made = make_demo(tmp_path / "demo", ROWS)
    corpus = load_corpus(made.config_path)
    with DemoServer(made.site, port=made.port):
        yield made.config_path, corpus, Workspace(corpus.workspace)


def test_a_broken_slice_fails_its_part_and_the_rest_is_released_and_the_next_build_heals_it(
    demo: tuple[Path, Corpus, Workspace],
) -> None:
    config, corpus, workspace = demo
    build(config, sources_only=True)
    broken, *sound = [part.name for part in workspace.catalog().live_parts()]
    assert sound
    from mmdata.takedown.read_part import read_part

    read_part(corpus, workspace, broken)
    stamp = workspace.part_stamp(broken, "rows")
    assert stamp is not None
    table = workspace.table(broken, "rows", stamp.slices[-1])
    table.write_bytes(b"PAR1 and then nothing")

    first = build(config)
    assert list(first.failed) == [broken]
    assert table.name in first.failed[broken]
    assert first.release_id is not None
    assert list(read_draft(workspace).parts) == sound
    assert verify_release(workspace.release_dir(first.release_id)).counts["samples"] > 0

    table.unlink()
    healed = build(config)
    assert healed.failed == {}
    assert healed.release_id != first.release_id
    summary = summarise(config.parent)
    assert summary.rows_in == summary.rows_accounted_for > ROWS, "clips, sounds and texts come on top of the pictures"
    verify_release(workspace.release_dir(str(healed.release_id)))

    chosen = read_table(workspace.release_dir(str(healed.release_id)) / "selection.parquet", ["uid", "keep"])
    uid = next(row["uid"] for row in chosen.to_pylist() if row["keep"])
    story = explain(corpus, workspace, uid)
    assert story.places
    assert story.instructions
    assert story.verdict.startswith(f"in release {healed.release_id}")
