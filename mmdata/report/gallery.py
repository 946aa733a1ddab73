"""Chooses the samples that the report shows, and reads their captions, pictures and sound."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import polars as pl

from mmdata.documents import DOCUMENT
from mmdata.report.stored import Stored, read_stored
from mmdata.workspace.layout import Workspace

COLUMNS = [
    "uid", "part", "slice", "signature", "clip_score", "keep", "reason", "duplicate_of", "concept", "repeats", "split",
]  # fmt: skip
MAX_SAMPLES = 8  # of each list
MAX_FILTER_REASONS = 8
MAX_PAIRS = 4
MAX_CONCEPTS = 4
MAX_CLIPS = 4
SAMPLES_PER_CONCEPT = 4


@dataclass(frozen=True, slots=True)
class Card:
    """A sample as the report shows it.

    Args:
        stored: its caption, pictures and sound.
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
        drawn: kept samples chosen at random (the lowest uids, because a uid is a hash).
        dropped: filter reason -> uids chosen at random.
        pairs: duplicate reason -> (dropped uid, uid of the sample that stays instead).
        common, rare: concept -> uids of its kept samples.
        clips: signature with video, sound or documents -> uids of its kept samples, shown with all frames and sound.
        captioned: those for which a trained model made captions.
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
    captioned: list[str] = field(default_factory=list)
    cards: dict[str, Card] = field(default_factory=dict)

    def uids(self) -> set[str]:
        """The uids of all samples in the gallery."""
        lists: list[Iterable[str]] = [self.drawn, self.best, self.worst, self.repeated, self.captioned]
        lists += [*self.dropped.values(), *self.common.values(), *self.rare.values(), *self.clips.values()]
        in_pairs = {uid for pairs in self.pairs.values() for pair in pairs for uid in pair}
        return in_pairs.union(*lists)


def choose(table: pl.LazyFrame, concepts: Sequence[str]) -> Gallery:
    """Choose samples to show from a selection table.

    Args:
        concepts: names, the most common first; the gallery shows the first and the last of them.
    """
    table = table.select(COLUMNS)
    kept = table.filter("keep")
    scored = kept.filter(pl.col("clip_score").is_finite())
    ends = concepts[:MAX_CONCEPTS], concepts[MAX_CONCEPTS:][-MAX_CONCEPTS:]
    common, rare = (
        {name: _uids(kept.filter(pl.col("concept") == name), SAMPLES_PER_CONCEPT) for name in names} for names in ends
    )
    counted = table.filter(~pl.col("keep")).group_by("reason").len().sort("len", "reason", descending=[True, False])
    reasons = counted.collect()["reason"].drop_nulls().to_list()
    filters = [reason for reason in reasons if reason.startswith("filter:")][:MAX_FILTER_REASONS]
    duplicates = [reason for reason in reasons if reason.startswith("duplicate:")]
    return Gallery(
        drawn=_uids(kept, 2 * MAX_SAMPLES),
        best=_uids(scored, MAX_SAMPLES, "clip_score", descending=True),
        worst=_uids(scored, MAX_SAMPLES, "clip_score"),
        dropped={reason: _uids(table.filter(pl.col("reason") == reason), MAX_SAMPLES) for reason in filters},
        pairs={reason: _pairs(table.filter(pl.col("reason") == reason)) for reason in duplicates},
        repeated=_uids(kept.filter(pl.col("repeats") > 1), MAX_SAMPLES, "repeats", descending=True),
        common=common,
        rare={name: uids for name, uids in rare.items() if uids},
        clips=_clips(kept),
    )


def fill(gallery: Gallery, table: pl.LazyFrame, workspace: Workspace) -> Gallery:
    """The same gallery with its cards: captions, links and pictures are read from the slices of the parts."""
    shown = table.select(COLUMNS).filter(pl.col("uid").is_in(sorted(gallery.uids()))).collect()
    cards: dict[str, Card] = {}
    with_sound = {uid for uids in gallery.clips.values() for uid in uids}
    for (part, name), group in shown.sort("uid").group_by(["part", "slice"], maintain_order=True):
        stored = read_stored(workspace, str(part), str(name), group["uid"].to_list(), with_sound)
        for row in group.iter_rows(named=True):
            columns = {key: row[key] for key in ("uid", "signature", "concept", "repeats", "split", "part")}
            cards[row["uid"]] = Card(**columns, stored=stored.get(row["uid"], Stored()), score=row["clip_score"])
    return replace(gallery, cards=cards)


def _clips(kept: pl.LazyFrame) -> dict[str, list[str]]:
    signature = pl.col("signature").cast(pl.String)
    signatures = kept.select(signature.unique().sort()).collect()["signature"].to_list()
    clip_signatures = [name for name in signatures if {"video", "audio", DOCUMENT} & set(name.split("+"))]
    return {name: _uids(kept.filter(signature == name), MAX_CLIPS) for name in clip_signatures}


def _uids(table: pl.LazyFrame, count: int, by: str | None = None, descending: bool = False) -> list[str]:
    """The first uids in order, or the first by a column and then by uid."""
    if by is None:
        return sorted(table.select("uid").bottom_k(count, by="uid").collect()["uid"])
    order: list[pl.Expr] = [-pl.col(by) if descending else pl.col(by), pl.col("uid")]
    return table.select("uid", by).bottom_k(count, by=order).collect().sort(order)["uid"].to_list()


def _pairs(table: pl.LazyFrame) -> list[tuple[str, str]]:
    pairs = table.select("uid", "duplicate_of").drop_nulls("duplicate_of")
    return sorted(pairs.bottom_k(MAX_PAIRS, by="uid").collect().iter_rows())
