"""The typed record of one sample's medium, and the check of its hash. Written by mmdata.download, read by media_tar."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypedDict, cast

from mmdata.documents import DOCUMENT_MEDIA, PICTURE
from mmdata.samples import EXPECTED_MD5, own_columns

HASH_MISMATCH = "hash_mismatch"


class Member(TypedDict):
    """A stored file of a sample: where its bytes lie in the slice's tar."""

    ext: str
    offset: int
    length: int


class DocumentPicture(TypedDict):
    """What was fetched for one picture of a document: the fields of `mmdata.documents.PICTURE`."""

    status: str
    error: str | None
    detail: str | None
    attempts: int
    next_retry_at: datetime | None
    sha256: str | None
    bytes: int | None
    mime: str | None
    original_width: int | None
    original_height: int | None
    width: int | None
    height: int | None
    faces: int | None


@dataclass(frozen=True, slots=True)
class MediaRecord:
    """A row of the media table. The fields are the columns of `mmdata.samples.MEDIA`, which explains them.

    Args:
        pictures: of a document, one for each of its markers; a column of `mmdata.documents.DOCUMENT_MEDIA` only.
    """

    uid: str
    status: str
    error: str | None = None
    detail: str | None = None
    attempts: int = 0
    next_retry_at: datetime | None = None
    sha256: str | None = None
    bytes: int | None = None
    mime: str | None = None
    original_width: int | None = None
    original_height: int | None = None
    width: int | None = None
    height: int | None = None
    duration_s: float | None = None
    fps: float | None = None
    ext: str | None = None
    offset: int | None = None
    length: int | None = None
    further: list[Member] | None = None
    frame_times_s: list[float] | None = None
    audio_s: float | None = None
    faces: int | None = None
    synthetic: str | None = None
    fetched_at: datetime | None = None
    etag: str | None = None
    pictures: list[DocumentPicture] | None = None

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> MediaRecord:
        """The record in a row of a media table."""
        columns: dict[str, Any] = {name: row.get(name) for name in DOCUMENT_MEDIA.names}
        return cls(**columns)

    def as_row(self) -> dict[str, Any]:
        """The row of the media table."""
        return {name: getattr(self, name) for name in DOCUMENT_MEDIA.names}

    def as_picture(self) -> DocumentPicture:
        """The record as that of one picture of a document."""
        return cast(DocumentPicture, {field.name: getattr(self, field.name) for field in PICTURE})

    @property
    def members(self) -> list[Member]:
        """The stored files, in their order."""
        if self.ext is None or self.offset is None or self.length is None:
            return []
        return [Member(ext=self.ext, offset=self.offset, length=self.length), *(self.further or ())]

    def with_members(self, members: list[Member]) -> MediaRecord:
        """The record with other stored files."""
        if not members:
            return replace(self, ext=None, offset=None, length=None, further=None)
        return replace(self, **members[0], further=members[1:] or None)

    def as_hash_mismatch(self, expected: ExpectedHashes, sha256: str | None, md5: str | None) -> MediaRecord:
        """The record of a file that is not the expected one, and of which nothing is stored.

        Args:
            sha256, md5: of the file that was fetched.
        """
        name, wanted, actual = expected.mismatch(sha256, md5) or ("sha256", expected.sha256, sha256)
        return replace(
            self,
            status="failed_to_download",
            error=HASH_MISMATCH,
            detail=f"expected {name} {wanted}, got {actual}",
            sha256=sha256,
            next_retry_at=None,
            width=None,
            height=None,
            faces=None,
            ext=None,
            offset=None,
            length=None,
        )

    def is_mismatch_resolved(self, expected: ExpectedHashes) -> bool:
        """Whether the file was refused for its hash, but is what the source expects now; it is then fetched again."""
        refused = _REFUSED_MD5.fullmatch(self.detail or "")
        return self.error == HASH_MISMATCH and expected.allows(self.sha256, refused[1] if refused else None)


_REFUSED_MD5 = re.compile(r"expected md5 [0-9a-f]{32}, got ([0-9a-f]{32})")


@dataclass(frozen=True, slots=True)
class ExpectedHashes:
    """The hashes that the source lists for a file, in hex; None: it lists none.

    Another file in its place may be an attack (split-view poisoning, docs/security.md).
    """

    sha256: str | None = None
    md5: str | None = None

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> ExpectedHashes:
        """The hashes that a row of a rows table expects."""
        sha256, extra = row["expected_sha256"], row.get("extra")
        md5 = own_columns(extra).get(EXPECTED_MD5) if extra and EXPECTED_MD5 in extra else None
        return cls(sha256.lower() if sha256 else None, md5.lower() if isinstance(md5, str) else None)

    def mismatch(self, sha256: str | None, md5: str | None) -> tuple[str, str, str] | None:
        """The name of the first hash that differs, as it is expected and as it is; None: none is known to differ."""
        for name, expected, actual in (("sha256", self.sha256, sha256), ("md5", self.md5, md5)):
            if expected is not None and actual is not None and expected != actual:
                return name, expected, actual
        return None

    def allows(self, sha256: str | None, md5: str | None) -> bool:
        """Whether a file may be the one that the source lists; true if a hash is unknown."""
        return self.mismatch(sha256, md5) is None

    def confirms(self, sha256: str | None, md5: str | None) -> bool:
        """Whether a file is the one that the source lists."""
        known = (self.sha256 is not None and sha256 is not None) or (self.md5 is not None and md5 is not None)
        return known and self.allows(sha256, md5)
