"""What the readers hand on: some rows of a file as columns of text, whatever the format they were in."""

from __future__ import annotations

from dataclasses import dataclass

from mmdata.errors import DataError

BATCH_ROWS = 8_192


class MissingColumns(DataError):
    """The file is sound, but has no URL or caption column of a name that we know."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive rows; all lists are of one length.

    Args:
        first: number of the first row in its file.
        extras: the columns that have no place elsewhere, as a JSON object; None where there are none.
        problems: what the reader itself found wrong (see `mmdata.sources.problems`); None: nothing.
        starts, ends: of clips, as they stand in the file.
    """

    first: int
    urls: list[str | None]
    captions: list[str | None]
    langs: list[str | None]
    hashes: list[str | None]
    extras: list[str | None]
    problems: list[str | None]
    starts: list[str | None]
    ends: list[str | None]

    def __len__(self) -> int:
        return len(self.urls)

    def columns(self) -> tuple[list[str | None], ...]:
        """All lists, in the order of the fields."""
        own = (self.urls, self.captions, self.langs, self.hashes, self.extras, self.problems)
        return (*own, self.starts, self.ends)

    def split(self, count: int) -> tuple[Batch, Batch]:
        """The first `count` rows, and the others."""
        head, tail = [c[:count] for c in self.columns()], [c[count:] for c in self.columns()]
        return Batch(self.first, *head), Batch(self.first + count, *tail)


def nothing(first: int, count: int, problem: str) -> Batch:
    """Rows of which only their number is known."""

    def nulls() -> list[str | None]:
        return [None] * count

    return Batch(first, nulls(), nulls(), nulls(), nulls(), nulls(), [problem] * count, nulls(), nulls())
