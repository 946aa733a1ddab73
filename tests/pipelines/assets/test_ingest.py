"""The assets `source_catalog`, `source_rows` and `media` on a real Dagster instance."""

from __future__ import annotations

import dagster as dg

from tests.support.graph_runs import failed_checks, materialised, run_job
from tests.support.standin_stages import Small


def test_the_catalogue_makes_a_partition_for_each_file_and_removes_those_of_files_that_are_gone(
    small: Small, instance: dg.DagsterInstance
) -> None:
    assert run_job(instance, "refresh_catalog").success
    assert instance.get_dynamic_partitions("parts") == ["web-000000", "web-000001"]
    small.write("c.txt", "one more")
    assert materialised(run_job(instance, "refresh_catalog")) == {"source_catalog"}
    assert "web-000002" in instance.get_dynamic_partitions("parts")


def test_rows_and_media_of_a_part_show_their_figures_and_the_check_of_the_downloads(
    small: Small, instance: dg.DagsterInstance
) -> None:
    run_job(instance, "refresh_catalog")
    result = run_job(instance, "build_part", "web-000000")
    assert failed_checks(result) == set()
    for asset in ("source_rows", "media"):
        metadata = result.asset_materializations_for_node(asset)[0].metadata
        assert metadata["dagster/partition_row_count"].value == 3
        assert metadata["why it ran"].value
    assert "download_share" in {check.check_name for check in result.get_asset_check_evaluations()}
