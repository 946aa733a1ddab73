"""A batch of source rows as columns of text: what the readers of all file formats return."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mmdata.errors import DataError

BATCH_ROWS = 8_192
MAX_BATCH_BYTES = 32_000_000  # of the file; a batch in memory takes a few times as much


class MissingColumns(DataError):
    """The file is not damaged, but has no URL or caption column with a name that we know."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive rows of a file; all lists have the same length.

    Args:
        problems: problem that the reader found in each row (see `mmdata.sources.problems`); None if it found none.
        starts, ends: start and end of each clip, as the file writes them.
        hashes, md5s: the SHA-256 and the MD5 that the source expects of each file.
        left_out: column -> mean bytes a row, for binary columns that are not written to `extra`.
    """

    first: int  # number of the first row in its file
    urls: list[str | None]
    captions: list[str | None]
    langs: list[str | None]
    hashes: list[str | None]
    extras: list[str | None]  # all other columns of each row, as a JSON object; None if there are none
    problems: list[str | None]
    starts: list[str | None]
    ends: list[str | None]
    md5s: list[str | None]
    left_out: Mapping[str, float] = field(default_factory=dict, kw_only=True)

    def __len__(self) -> int:
        return len(self.urls)

    def columns(self) -> tuple[list[str | None], ...]:
        """All lists, in the order of the fields."""
        texts = (self.urls, self.captions, self.langs, self.hashes, self.extras)
        return (*texts, self.problems, self.starts, self.ends, self.md5s)

    def split(self, count: int) -> tuple[Batch, Batch]:
        """Two batches: the first `count` rows, and the rest."""
        columns = self.columns()
        head, tail = [column[:count] for column in columns], [column[count:] for column in columns]
        return (
            Batch(self.first, *head, left_out=self.left_out),
            Batch(self.first + count, *tail, left_out=self.left_out),
        )


def unreadable_rows(first: int, count: int, problem: str) -> Batch:
    """Rows that could not be read; nothing but their row numbers is known."""
    nulls: list[str | None] = [None] * count
    return Batch(first, nulls, nulls, nulls, nulls, nulls, [problem] * count, nulls, nulls, nulls)
