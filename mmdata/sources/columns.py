"""Which columns of a source file mean what: LAION-5B, LAION-400M and DataComp as published, or a mapping."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mmdata.config import Source
from mmdata.sources.batches import MissingColumns


@dataclass(frozen=True, slots=True)
class Columns:
    """The names that a file gives to what we read; None where it has no such column.

    Args:
        url: of an index of videos, the column of their ids; it goes to `extra`, too.
    """

    url: str | None = None
    caption: str | None = None
    lang: str | None = None
    expected_sha256: str | None = None
    start_s: str | None = None
    end_s: str | None = None

    @property
    def own(self) -> frozenset[str]:
        """The columns that become columns of rows; all others go to `extra`."""
        names = (self.url, self.caption, self.lang, self.expected_sha256, self.start_s, self.end_s)
        return frozenset(name for name in names if name is not None) - {VIDEO_ID}

    @property
    def text(self) -> list[str]:
        """The columns that must have a text form."""
        return [name for name in (self.url, self.caption, self.start_s, self.end_s) if name is not None]


VIDEO_ID = "video_id"
"""HowTo100M's name for a video's id."""


FAMILIES = {
    # SAMPLE_ID, URL, TEXT, HEIGHT, WIDTH, LICENSE, NSFW, similarity
    "laion-400m": Columns("URL", "TEXT"),
    # URL, TEXT, WIDTH, HEIGHT, similarity, hash, punsafe, pwatermark, LANGUAGE, aesthetic
    "laion-5b": Columns("URL", "TEXT", lang="LANGUAGE"),
    # uid, url, text, original_width, original_height, clip_b32_similarity_score, …, face_bboxes, sha256
    "datacomp": Columns("url", "text", expected_sha256="sha256"),
}
"""Family -> columns, in the case in which they were published. All are read by kind `laion`."""


def family_of(found: Sequence[str]) -> str | None:
    """Which family the columns are of; None: of none."""
    names = set(found)
    if {"URL", "TEXT"} <= names:
        return "laion-400m" if "SAMPLE_ID" in names else "laion-5b"
    return "datacomp" if {"url", "text"} <= names else None


def columns_of(source: Source, found: Sequence[str], path: str) -> Columns:
    """Where a file's columns are.

    Raises:
        MissingColumns: lists the columns found.
    """
    if source.kind == "howto100m":
        return _index(found, path)
    if source.kind != "laion":
        return _mapped(source, found, path)
    family = family_of(found)
    if family is None:
        raise MissingColumns(
            f"{path}: neither URL and TEXT (LAION) nor url and text (DataComp) among its columns: {_listed(found)}. "
            "Remedy: kind `pairs` with columns: {url: <column>, caption: <column>}."
        )
    known = FAMILIES[family]
    lang = known.lang if known.lang in found else None
    sha256 = known.expected_sha256 if known.expected_sha256 in found else None
    return Columns(known.url, known.caption, lang, sha256)


def _mapped(source: Source, found: Sequence[str], path: str) -> Columns:
    wanted = Columns(**source.columns)
    if missing := sorted(wanted.own - set(found)):
        raise MissingColumns(
            f"{path}: no column {', '.join(missing)} among its columns: {_listed(found)}. "
            f"Remedy: correct `columns` of source {source.name} in corpus.yaml."
        )
    return wanted


def _index(found: Sequence[str], path: str) -> Columns:
    if VIDEO_ID not in found:
        raise MissingColumns(
            f"{path}: no column {VIDEO_ID} among its columns: {_listed(found)}. "
            "Remedy: `files` names HowTo100M's index, HowTo100M_v1.csv, and `captions` its captions."
        )
    return Columns(url=VIDEO_ID)


def _listed(found: Sequence[str]) -> str:
    return ", ".join(map(str, found[:50])) or "none"
