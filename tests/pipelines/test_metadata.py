"""Stage reports as Dagster metadata."""

from __future__ import annotations

import base64

import dagster as dg
import pytest

from mmdata.samples import COLUMNS
from mmdata.stage import StageReport
from pipelines.metadata import LINEAGE, MAX_IMAGE_BYTES, image, table, to_metadata
from tests.support.standin_stages import PIXEL


def test_rows_become_the_row_count_of_the_part_or_of_the_asset() -> None:
    assert to_metadata(StageReport("media", "web-000000", {"rows": 3}))["dagster/partition_row_count"] == 3
    assert to_metadata(StageReport("selection", None, {"rows": 3}))["dagster/row_count"] == 3


def test_pictures_come_before_tables_and_carry_their_bytes() -> None:
    report = StageReport("selection", images={"CLIP score": PIXEL}, reasons={"a": 1}, numbers={"share": 1 / 3})
    metadata = to_metadata(report)
    assert list(metadata)[:3] == ["share", "CLIP score", "reasons"]
    assert metadata["share"].value == 0.3333
    markdown = metadata["CLIP score"].value
    prefix = "![CLIP score](data:image/png;base64,"
    assert markdown.startswith(prefix)
    assert base64.b64decode(markdown.removeprefix(prefix).removesuffix(")")) == PIXEL


def test_a_picture_over_the_limit_is_told_and_not_embedded() -> None:
    shown = image("grid", b"\x89PNG" + bytes(MAX_IMAGE_BYTES))
    assert isinstance(shown, dg.TextMetadataValue)


def test_a_pictures_name_cannot_break_out_of_its_markdown() -> None:
    value = image("x](javascript:alert(1)) <b>", PIXEL).value
    assert str(value).startswith("![x  javascript alert 1    b ](data:")


def test_text_from_outside_stays_a_plain_cell() -> None:
    hostile = "<script>alert(1)</script> [x](javascript:1) | `"
    records = to_metadata(StageReport("media", "p", reasons={hostile: 2}))["reasons"].value.records
    assert records[0].data == {"reason": hostile, "rows": 2}


def test_reasons_are_sorted_by_how_common_they_are() -> None:
    records = to_metadata(StageReport("media", "p", reasons={"b": 1, "c": 5, "a": 1}))["reasons"].value.records
    assert [record.data["reason"] for record in records] == ["c", "a", "b"]


def test_a_long_table_is_cut_and_odd_values_become_text() -> None:
    shown = table([{"n": n, "share": 0.5, "none": None, "path": object} for n in range(150)])
    assert len(shown.records) == 100
    kinds = {column.name: column.type for column in shown.schema.columns}
    assert kinds == {"n": "int", "share": "float", "none": "string", "path": "string"}


@pytest.mark.parametrize("stage", ["rows", "media", "features", "selection", "shards"])
def test_columns_have_types_and_descriptions(stage: str) -> None:
    metadata = to_metadata(StageReport(stage))
    columns = {column.name: column for column in metadata["dagster/column_schema"].columns}
    assert columns["uid"].type == "string"
    assert not columns["uid"].constraints.nullable
    assert set(LINEAGE[stage]) <= set(columns)
    assert {name: column.description for name, column in columns.items()} == {
        column.name: column.description for column in COLUMNS[stage]
    }


def test_lineage_names_columns_of_the_assets_above() -> None:
    lineage = to_metadata(StageReport("features"))["dagster/column_lineage"]
    assert [dep.column_name for dep in lineage.deps_by_column["phash"]] == ["sha256"]
