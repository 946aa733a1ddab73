"""Rows by grammar, through every stage up to a verified release: none is lost, and none stops another."""

from __future__ import annotations

import random
import re
from collections import Counter
from pathlib import Path

import polars as pl
import pytest

from mmdata.cli.console import console
from mmdata.cli.explain import show_story
from mmdata.inspect.story import explain
from mmdata.publish.verify import verify_release
from mmdata.report.stage import report_release
from mmdata.samples import STATUSES
from mmdata.storage.tables import scan_tables
from tests.support.fuzzing import draws
from tests.support.hostile_inputs import BY_GRAMMAR
from tests.support.published import Published, serving
from tests.support.row_grammar import COLUMNS, write_sources

ROWS_PER_KIND = BY_GRAMMAR["rows"] // (len(COLUMNS) + 1)
PAGE = (Path(__file__).resolve().parents[2] / "docs" / "sources.md").read_text(encoding="utf-8")
CORPORA = [pytest.param(draw, id=name) for name, draw in draws("rows", 1)]


def frame(built: Published, stage: str) -> pl.DataFrame:
    tables = [path for part in built.parts() for path in (built.workspace.part_dir(part) / stage).glob("*.parquet")]
    return pl.concat([scan_tables([table]).collect() for table in tables], how="vertical_relaxed")


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("draw", CORPORA)
def test_a_row_is_released_or_has_a_reason(draw: random.Random, tmp_path: Path) -> None:
    with serving() as web:
        built = Published(tmp_path, str(tmp_path / "workspace"), web)
        sources = write_sources(draw, tmp_path / "inbox", ROWS_PER_KIND, web.url)
        download = {"allow_hosts": ["127.0.0.1"], "retries": 0, "timeout_s": 1, "deadline_s": 2, "min_success_share": 0}
        built.sections = {"sources": sources, "download": download}
        release_id = built.build()  # which fails if a part is lost
    rows, media, features = (frame(built, stage) for stage in ("rows", "media", "features"))
    read = Counter()
    for part in built.parts():
        stamp = built.workspace.part_stamp(part, "rows")
        assert stamp is not None
        read[part] = stamp.counts["rows"]
    assert read.total() == BY_GRAMMAR["rows"]
    assert set(rows["uid"]) == set(media["uid"]) == set(features["uid"])
    undocumented = [reason for reason in rows["problem"].drop_nulls().unique() if f"`{reason}`" not in PAGE]
    assert not undocumented, "docs/sources.md must explain each problem"
    assert set(media["status"]) <= set(STATUSES)
    assert media.filter((pl.col("status") == "success") != pl.col("error").is_null()).is_empty()
    assert media.filter(pl.col("status") == "success").height
    folder = built.workspace.release_dir(release_id)
    assert verify_release(folder).counts["samples"]
    report_release(folder)
    for uid in draw.sample(sorted(rows["uid"]), 5):
        show_story(console(), explain(built.corpus, built.workspace, uid))
    assert not re.search("[\ud800-\udfff]", "".join(rows["caption"].drop_nulls()))
