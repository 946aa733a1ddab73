"""Which columns of a source file mean what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mmdata.config import Source
from mmdata.errors import DataError


@dataclass(frozen=True, slots=True)
class Columns:
    """The names that a file gives to what we read; None where it has no such column."""

    url: str
    caption: str
    lang: str | None = None
    expected_sha256: str | None = None

    @property
    def own(self) -> set[str]:
        """The columns that become columns of rows; all others go to `extra`."""
        return {name for name in (self.url, self.caption, self.lang, self.expected_sha256) if name is not None}


LAION_5B = Columns("URL", "TEXT", lang="LANGUAGE")
"""`URL, TEXT, WIDTH, HEIGHT, similarity, hash, punsafe, pwatermark, LANGUAGE, aesthetic` (LAION-400M: the same two
names, with `SAMPLE_ID`, `LICENSE`, `NSFW`)."""
DATACOMP = Columns("url", "text", expected_sha256="sha256")
"""`uid, url, text, original_width, original_height, clip_b32_similarity_score, …, face_bboxes, sha256`."""


def columns_of(source: Source, found: Sequence[str], path: str) -> Columns:
    """Where a file's columns are. Raises DataError that lists the columns found."""
    if source.kind == "pairs":
        wanted = Columns(**source.columns)
        return _checked(wanted, found, path, required=wanted.own)
    for family in (LAION_5B, DATACOMP):
        if {family.url, family.caption} <= set(found):
            lang = family.lang if family.lang in found else None
            sha256 = family.expected_sha256 if family.expected_sha256 in found else None
            return Columns(family.url, family.caption, lang, sha256)
    names = "URL and TEXT (LAION) or url and text (DataComp)"
    raise DataError(
        f"{path}: no {names} among its columns {list(found)}. "
        f"Remedy: use kind `pairs` with columns: {{url: <column>, caption: <column>}}."
    )


def _checked(columns: Columns, found: Sequence[str], path: str, required: set[str]) -> Columns:
    if missing := sorted(required - set(found)):
        raise DataError(
            f"{path}: no column {', '.join(missing)} among its columns {list(found)}. "
            f"Remedy: correct the `columns` of its source."
        )
    return columns
