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

FAMILIES = {
    # SAMPLE_ID, URL, TEXT, HEIGHT, WIDTH, LICENSE, NSFW, similarity
    "laion-400m": Columns("URL", "TEXT"),
    # URL, TEXT, WIDTH, HEIGHT, similarity, hash, punsafe, pwatermark, LANGUAGE, aesthetic
    "laion-5b": Columns("URL", "TEXT", lang="LANGUAGE"),
    # uid, url, text, original_width, original_height, clip_b32_similarity_score, …, face_bboxes, sha256
    "datacomp": Columns("url", "text", expected_sha256="sha256"),
}
"""Family -> columns, spelled as they were published. Sources of kind `laion` read all of them."""


def family_of(column_names: Sequence[str]) -> str | None:
    """The family that has such columns; None if there is none."""
    names = set(column_names)
    if {"URL", "TEXT"} <= names:
        return "laion-400m" if "SAMPLE_ID" in names else "laion-5b"
    return "datacomp" if {"url", "text"} <= names else None


def columns_of(source: Source, names: Sequence[str], path: str) -> Columns:
    """The columns of a file that we read.

    Raises:
        MissingColumns: a needed column is missing; lists the columns of the file.
    """
    if source.kind == "howto100m":
        return _index(names, path)
    if source.kind != "laion":
        return _mapped(source, names, path)
    family = family_of(names)
    if family is None:
        raise MissingColumns(
            f"{path}: neither URL and TEXT (LAION) nor url and text (DataComp) among its columns: {_listed(names)}. "
            "Remedy: kind `pairs` with columns: {url: <column>, caption: <column>}."
        )
    published = FAMILIES[family]
    lang = published.lang if published.lang in names else None
    sha256 = published.expected_sha256 if published.expected_sha256 in names else None
    return Columns(published.url, published.caption, lang, sha256)


def _mapped(source: Source, names: Sequence[str], path: str) -> Columns:
    wanted = Columns(**source.columns)
    if missing := sorted(wanted.mapped - set(names)):
        raise MissingColumns(
            f"{path}: no column {', '.join(missing)} among its columns: {_listed(names)}. "
            f"Remedy: correct `columns` of source {source.name} in corpus.yaml."
        )
    return wanted


def _index(names: Sequence[str], path: str) -> Columns:
    if VIDEO_ID not in names:
        raise MissingColumns(
            f"{path}: no column {VIDEO_ID} among its columns: {_listed(names)}. "
            "Remedy: `files` names HowTo100M's index, HowTo100M_v1.csv, and `captions` its captions."
        )
    return Columns(url=VIDEO_ID)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(str, names[:50])) or "none"
