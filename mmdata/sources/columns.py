"""Finds URL, caption and other columns of a source file: of LAION and DataComp as published, or by a mapping."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mmdata.config import Source
from mmdata.sources.batches import MissingColumns


@dataclass(frozen=True, slots=True)
class Columns:
    """The names of the columns that we read; None if the file has no such column."""

    url: str | None = None  # the URL; for an index of videos, the video id, which is also written to `extra`
    caption: str | None = None
    lang: str | None = None
    expected_sha256: str | None = None
    start_s: str | None = None
    end_s: str | None = None

    @property
    def mapped(self) -> frozenset[str]:
        """The columns that become columns of the rows table; all others are written to `extra`."""
        names = (self.url, self.caption, self.lang, self.expected_sha256, self.start_s, self.end_s)
        return frozenset(name for name in names if name is not None) - {VIDEO_ID}

    @property
    def text(self) -> list[str]:
        """The columns that are read as text."""
        return [name for name in (self.url, self.caption, self.start_s, self.end_s) if name is not None]


VIDEO_ID = "video_id"
"""Name of the column of video ids in the index of HowTo100M."""


def _published_columns(names: set[str]) -> Columns | None:
    """The columns of LAION's and DataComp's tables, spelled as they were published; None for other tables.

    - LAION-400M: SAMPLE_ID, URL, TEXT, HEIGHT, WIDTH, LICENSE, NSFW, similarity
    - LAION-5B: URL, TEXT, WIDTH, HEIGHT, similarity, hash, punsafe, pwatermark, LANGUAGE, aesthetic
    - DataComp: uid, url, text, original_width, original_height, clip_b32_similarity_score, …, face_bboxes, sha256
    """
    if {"URL", "TEXT"} <= names:
        has_language = "LANGUAGE" in names and "SAMPLE_ID" not in names
        return Columns("URL", "TEXT", lang="LANGUAGE" if has_language else None)
    if {"url", "text"} <= names:
        return Columns("url", "text", expected_sha256="sha256" if "sha256" in names else None)
    return None


def columns_of(source: Source, names: Sequence[str], path: str) -> Columns:
    """The columns of a file that we read.

    Raises:
        MissingColumns: a needed column is missing; lists the columns of the file.
    """
    if source.kind == "howto100m":
        if VIDEO_ID not in names:
            raise MissingColumns(
                f"{path}: no column {VIDEO_ID} among its columns: {_listed(names)}. "
                "Remedy: `files` names HowTo100M's index, HowTo100M_v1.csv, and `captions` its captions."
            )
        return Columns(url=VIDEO_ID)
    if source.kind != "laion":
        mapped = Columns(**source.columns)
        if missing := sorted(mapped.mapped - set(names)):
            raise MissingColumns(
                f"{path}: no column {', '.join(missing)} among its columns: {_listed(names)}. "
                f"Remedy: correct `columns` of source {source.name} in corpus.yaml."
            )
        return mapped
    published = _published_columns(set(names))
    if published is None:
        raise MissingColumns(
            f"{path}: neither URL and TEXT (LAION) nor url and text (DataComp) among its columns: {_listed(names)}. "
            "Remedy: kind `pairs` with columns: {url: <column>, caption: <column>}."
        )
    return published


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(str, names[:50])) or "none"
