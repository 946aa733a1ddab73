"""The digest of the captions of many videos."""

from __future__ import annotations

from pathlib import Path

from upath import UPath

from mmdata.sources.caption_digest import CaptionFile, files_digest, known_digests

FILES = [CaptionFile("a", 5, "1"), CaptionFile("b", 5, "1")]


def digest(files: list[CaptionFile], known: UPath | None = None, content: str = "words of {}") -> str:
    return files_digest(files, lambda file: content.format(file.video_id), known)


def test_neither_order_nor_times_count() -> None:
    assert digest(FILES) == digest(FILES[::-1]) == digest([file._replace(version="2") for file in FILES])
    assert len({digest(FILES), digest(FILES[:1]), digest([]), digest(FILES, content="other words of {}")}) == 4


def test_what_is_known_is_not_asked_again(tmp_path: Path) -> None:
    known = known_digests(UPath(tmp_path), "captions/{video_id}.csv")
    first = digest(FILES, known)
    assert digest(FILES, known, content="never asked") == first
    assert digest([FILES[0], FILES[1]._replace(size=6)], known, content="asked for {}") != first
    assert known_digests(UPath(tmp_path), "other/{video_id}.csv") != known
