"""Section `sources`: what a source must say, by its kind."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from mmdata.config import OptOutList
from mmdata.config.load import parse_corpus
from mmdata.errors import UserError


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"kind": "video", "columns": {"url": "u"}}, "needs columns"),
        ({"kind": "text", "columns": {"caption": "t", "url": "u"}}, "not known"),
        ({"kind": "video", "columns": {"url": "u", "caption": "t", "start_s": "a"}}, "go together"),
        ({"kind": "audio", "columns": {"url": "u", "end_s": "a"}}, "go together"),
        ({"kind": "audio", "columns": {"url": "u"}, "clip_s": 10}, "go together"),
        ({"kind": "audio", "columns": {"url": "u", "start_s": "a", "end_s": "b"}, "clip_s": 10}, "ends either"),
        ({"kind": "audio", "columns": {"url": "u"}, "url_template": "https://m/x"}, "needs {url}"),
        ({"kind": "howto100m"}, "needs `captions`"),
        ({"kind": "laion", "captions": "c.json"}, "takes no `captions`"),
        ({"kind": "howto100m", "captions": "c.json", "fetch_from": "https://m/x.mp4"}, "no {video_id}"),
    ],
)
def test_a_source_that_cannot_be_read_says_what_it_lacks(source: dict[str, Any], said: str) -> None:
    data = {"workspace": "w", "sources": [{"name": "a", "files": "x", **source}]}
    with pytest.raises(UserError, match=re.escape(said)):
        parse_corpus(data)


def test_parts_of_videos_are_small() -> None:
    source = {"name": "a", "kind": "howto100m", "files": "x", "captions": "c.json"}
    parsed = parse_corpus({"workspace": "w", "sources": [source]}).sources[0]
    assert (parsed.part_rows, parsed.slice_rows) == (2000, 200)
    assert parse_corpus({"workspace": "w", "sources": [{**source, "slice_rows": 7}]}).sources[0].slice_rows == 7


def test_a_path_alone_is_a_list() -> None:
    assert OptOutList.model_validate("lists/a.txt") == OptOutList(path="lists/a.txt")
    assert OptOutList.model_validate({"path": "a.csv", "column": "link", "holds": "url"}).holds == "url"


def test_files_are_one_pattern_or_several(tmp_path: Path) -> None:
    def patterns(files: Any) -> list[str]:
        return (
            parse_corpus({"workspace": "w", "sources": [{"name": "a", "kind": "laion", "files": files}]}, tmp_path)
            .sources[0]
            .patterns
        )

    assert patterns("in/*.csv") == [str(tmp_path / "in/*.csv")]
    assert patterns(["in/*.csv", "s3://b/*"]) == [str(tmp_path / "in/*.csv"), "s3://b/*"]


@pytest.mark.parametrize(
    ("source", "said"),
    [({"header": ["url", "url"]}, "names a column twice"), ({"header": []}, "header"), ({"files": []}, "files")],
)
def test_keys_that_say_nothing_are_refused(source: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        parse_corpus({"workspace": "w", "sources": [{"name": "a", "kind": "laion", "files": "x", **source}]})
