"""The assets `features` and `selection` on a real Dagster instance."""

from __future__ import annotations

import dagster as dg

from tests.support.graph_runs import build_all, failed_checks, materialised, run_job
from tests.support.standin_stages import Small


def test_materialisation_shows_figures_tables_and_pictures(small: Small, instance: dg.DagsterInstance) -> None:
    parts = build_all(instance)
    rows = parts["web-000000"].asset_materializations_for_node("source_rows")[0].metadata
    assert rows["dagster/partition_row_count"].value == 3
    assert "expected_sha256" in [column.name for column in rows["dagster/column_schema"].value.columns]
    chosen = run_job(instance, "publish_release").asset_materializations_for_node("selection")[0].metadata
    assert chosen["dagster/row_count"].value == 5
    assert chosen["scores"].value.startswith("![scores](data:image/png;base64,")
    assert [record.data for record in chosen["reasons"].value.records] == [{"reason": "media:gone", "rows": 1}]


def test_blocking_check_stops_a_release_that_lost_a_row(small: Small, instance: dg.DagsterInstance) -> None:
    small.write("c.txt", "lose me", "fine")
    build_all(instance)
    release = run_job(instance, "publish_release")
    assert not release.success
    assert failed_checks(release) == {"no_uid_lost"}
    assert materialised(release) == {"selection"}
    assert small.workspace.latest() is None


def test_blocking_check_stops_a_release_whose_clusters_straddle_the_splits(
    small: Small, instance: dg.DagsterInstance
) -> None:
    small.write("c.txt", "leak", "fine")
    build_all(instance)
    release = run_job(instance, "publish_release")
    assert failed_checks(release) == {"no_split_leakage"}
    assert small.workspace.latest() is None
