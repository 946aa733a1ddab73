"""Patterns with braces, lists of patterns, and columns from the folders of a path."""

from __future__ import annotations

import pytest

from mmdata.config import Source
from mmdata.sources.patterns import expanded, folder_columns, relative_name


def test_braces_stand_for_each_of_their_words_and_numbers() -> None:
    assert [*expanded(["in/{a,b}/{08..10}.csv", "c.csv"])] == [
        *("in/a/08.csv", "in/a/09.csv", "in/a/10.csv", "in/b/08.csv", "in/b/09.csv", "in/b/10.csv"), "c.csv",
    ]  # fmt: skip
    assert sorted({*expanded(["in/{a,{b,c}d}", "{x}"])}) == ["in/a", "in/bd", "in/cd", "{x}"]


@pytest.mark.parametrize(
    ("files", "name"),
    [
        ("/d/in/*/a.csv", "x/a.csv"),
        ("/d/in/{x,y}/*.csv", "x/a.csv"),
        (["/d/in/x/*.csv", "/d/in/y/*.csv"], "x/a.csv"),
        (["/d/in/x/*.csv"], "a.csv"),
        (["/d/in/x/*.csv", "/d/in/x/*.tsv"], "a.csv"),
    ],
)
def test_a_name_is_relative_to_the_folder_that_all_patterns_share(files: str | list[str], name: str) -> None:
    assert relative_name(Source(name="a", kind="laion", files=files), "/d/in/x/a.csv") == name


@pytest.mark.parametrize(
    ("path", "columns"),
    [
        ("/d/k=v/in/lang=en/day=2024-01-01/a.parquet", {"lang": "en", "day": "2024-01-01"}),
        ("s3://bucket/lang=a%20b/n=__HIVE_DEFAULT_PARTITION__/a.csv", {"lang": "a b", "n": None}),
        ("/d/a=b.csv", {}),
        ("/d/=x/a.csv", {}),
    ],
)
def test_the_folders_right_above_a_file_are_columns(path: str, columns: dict[str, str | None]) -> None:
    assert folder_columns(path) == columns
