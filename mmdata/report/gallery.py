"""Which samples the report shows, and their captions and pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import polars as pl

from mmdata.report.stored import Stored, read_stored
from mmdata.workspace.layout import Workspace

COLUMNS = [
    "uid", "part", "slice", "signature", "clip_score", "keep", "reason", "duplicate_of", "concept", "repeats", "split",
]  # fmt: skip
SHOWN = 8
RULES_SHOWN = 8
PAIRS_SHOWN = 4
CONCEPTS_SHOWN = 4
CLIPS_SHOWN = 4


@dataclass(frozen=True, slots=True)
class Card:
    """A sample as the report shows it.

    Args:
        stored: its words, and what can be seen and heard of it.
        score: image-text cosine; None where there is none.
    """

    uid: str
    signature: str
    stored: Stored
    score: float | None
    concept: str | None
    repeats: int
    split: str | None
    part: str


@dataclass(frozen=True, slots=True)
class Gallery:
    """The samples of each section of the report, as uids; `cards` holds each once.

    Args:
        drawn: kept ones, drawn by chance (the lowest uids: a uid is a hash).
        dropped: filter reason -> uids, drawn by chance.
        pairs: duplicate reason -> (dropped, stays instead).
        common, rare: concept -> uids of it that are kept.
        clips: signature with video or sound -> uids of it that are kept; their frames are shown, their sound is played.
    """

    drawn: list[str]
    best: list[str]
    worst: list[str]
    dropped: dict[str, list[str]]
    pairs: dict[str, list[tuple[str, str]]]
    repeated: list[str]
    common: dict[str, list[str]]
    rare: dict[str, list[str]]
    clips: dict[str, list[str]]
    cards: dict[str, Card] = field(default_factory=dict)

    def uids(self) -> set[str]:
        """All samples shown."""
        lists: list[Iterable[str]] = [self.drawn, self.best, self.worst, self.repeated]
        lists += [*self.dropped.values(), *self.common.values(), *self.rare.values(), *self.clips.values()]
        return {uid for one in lists for uid in one} | {
            u for pairs in self.pairs.values() for pair in pairs for u in pair
        }


def choose(table: pl.LazyFrame, concepts: Sequence[str]) -> Gallery:
    """Choose samples to show from a selection table.

    Args:
        concepts: names, the most common first; the ends are shown.
    """
    table = table.select(COLUMNS)
    kept = table.filter("keep")
    scored = kept.filter(pl.col("clip_score").is_finite())
    wanted = concepts[:CONCEPTS_SHOWN], concepts[CONCEPTS_SHOWN:][-CONCEPTS_SHOWN:]
    common, rare = ({name: _uids(kept.filter(pl.col("concept") == name), 4) for name in names} for names in wanted)
    reasons = (
        table.filter(~pl.col("keep"))
        .group_by("reason")
        .len()
        .sort(["len", "reason"], descending=[True, False])
        .collect()
    )["reason"].to_list()
    filters = [reason for reason in reasons if reason and reason.startswith("filter:")][:RULES_SHOWN]
    duplicates = [reason for reason in reasons if reason and reason.startswith("duplicate:")]
    return Gallery(
        drawn=_uids(kept, 2 * SHOWN),
        best=_uids(scored, SHOWN, "clip_score", descending=True),
        worst=_uids(scored, SHOWN, "clip_score"),
        dropped={reason: _uids(table.filter(pl.col("reason") == reason), SHOWN) for reason in filters},
        pairs={reason: _pairs(table.filter(pl.col("reason") == reason)) for reason in duplicates},
        repeated=_uids(kept.filter(pl.col("repeats") > 1), SHOWN, "repeats", descending=True),
        common=common,
        rare={name: uids for name, uids in rare.items() if uids},
        clips=_clips(kept),
    )


def fill(gallery: Gallery, table: pl.LazyFrame, workspace: Workspace) -> Gallery:
    """The same gallery with its cards: captions, links and pictures, read from the slices that hold them."""
    shown = table.select(COLUMNS).filter(pl.col("uid").is_in(sorted(gallery.uids()))).collect()
    cards: dict[str, Card] = {}
    whole = {uid for uids in gallery.clips.values() for uid in uids}
    for (part, name), group in shown.sort("uid").group_by(["part", "slice"], maintain_order=True):
        stored = read_stored(workspace, str(part), str(name), group["uid"].to_list(), whole)
        for row in group.iter_rows(named=True):
            own = {key: row[key] for key in ("uid", "signature", "concept", "repeats", "split", "part")}
            cards[row["uid"]] = Card(**own, stored=stored.get(row["uid"], Stored()), score=row["clip_score"])
    return Gallery(**{name: getattr(gallery, name) for name in Gallery.__slots__ if name != "cards"}, cards=cards)


def _clips(kept: pl.LazyFrame) -> dict[str, list[str]]:
    signatures = kept.select(pl.col("signature").cast(pl.String).unique().sort()).collect()["signature"].to_list()
    moving = [name for name in signatures if {"video", "audio"} & set(name.split("+"))]
    return {name: _uids(kept.filter(pl.col("signature").cast(pl.String) == name), CLIPS_SHOWN) for name in moving}


def _uids(table: pl.LazyFrame, count: int, by: str | None = None, descending: bool = False) -> list[str]:
    """The first uids, or the first by a column, ties by uid."""
    if by is None:
        return sorted(table.select("uid").bottom_k(count, by="uid").collect()["uid"])
    order: list[pl.Expr] = [-pl.col(by) if descending else pl.col(by), pl.col("uid")]
    return table.select("uid", by).bottom_k(count, by=order).collect().sort(order)["uid"].to_list()


def _pairs(table: pl.LazyFrame) -> list[tuple[str, str]]:
    found = (
        table.filter(pl.col("duplicate_of").is_not_null()).select("uid", "duplicate_of").bottom_k(PAIRS_SHOWN, by="uid")
    )
    return sorted(found.collect().iter_rows())
