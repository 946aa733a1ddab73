"""A corpus with nothing to do: corpus.yaml, one source file, a finished part, a release and its report."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from mmdata.config.load import load_corpus
from mmdata.report.stage import report_release
from mmdata.sources.catalog import update_catalog
from mmdata.workspace.layout import Workspace
from tests.support import workspaces
from tests.support.workspaces import SELECT_ALL, Built, release

SAMPLES = 20


def make_settled(folder: Path) -> Built:
    """Make the corpus in a folder; its corpus.yaml lies there too. No network, no model, no Dagster."""
    (folder / "inbox").mkdir(parents=True)
    rows = {"URL": [f"https://example.org/{n}.jpg" for n in range(SAMPLES)], "TEXT": ["a sea"] * SAMPLES}
    pq.write_table(pa.table(rows), folder / "inbox" / "a.parquet")
    write_config(folder)
    corpus = load_corpus(folder / "corpus.yaml")
    built = Built(corpus, Workspace(corpus.workspace))
    update_catalog(corpus, built.workspace)
    (part,) = built.workspace.catalog().live_parts()
    workspaces.finish_part(built, part, range(SAMPLES))
    report_release(built.workspace.release_dir(release(built)))
    return built


def write_config(folder: Path, **sections: object) -> None:
    """Write corpus.yaml; `sections` replace those of the settled corpus."""
    settings = {
        "workspace": "./workspace",
        "sources": [{"name": "web", "kind": "laion", "files": "inbox/*.parquet"}],
        "score": {"model": "demo"},
        "select": SELECT_ALL,
        "shards": {"shard_mb": 0.02, "validation_fraction": 0.1},
    }
    (folder / "corpus.yaml").write_text(yaml.safe_dump(settings | sections), encoding="utf-8")
