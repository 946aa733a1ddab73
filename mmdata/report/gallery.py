"""Which samples the report shows, and their captions and pictures."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from mmdata.errors import DataError
from mmdata.report.plots import thumbnail
from mmdata.tables import read_table
from mmdata.workspace import Workspace

THUMBNAIL_PX = 168
COLUMNS = ["uid", "part", "slice", "clip_score", "keep", "reason", "duplicate_of", "concept", "repeats", "split"]
SHOWN = 8
RULES_SHOWN = 8
PAIRS_SHOWN = 4
CONCEPTS_SHOWN = 4


@dataclass(frozen=True, slots=True)
class Card:
    """A sample as the report shows it.

    Args:
        image: a data URI of a small JPEG; None where the picture is no longer stored or cannot be read.
        score: image-text cosine; None where there is none.
    """

    uid: str
    caption: str
    url: str
    image: str | None
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
    """

    drawn: list[str]
    best: list[str]
    worst: list[str]
    dropped: dict[str, list[str]]
    pairs: dict[str, list[tuple[str, str]]]
    repeated: list[str]
    common: dict[str, list[str]]
    rare: dict[str, list[str]]
    cards: dict[str, Card] = field(default_factory=dict)

    def uids(self) -> set[str]:
        """All samples shown."""
        lists: list[Iterable[str]] = [self.drawn, self.best, self.worst, self.repeated]
        lists += [*self.dropped.values(), *self.common.values(), *self.rare.values()]
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
    )


def fill(gallery: Gallery, table: pl.LazyFrame, workspace: Workspace) -> Gallery:
    """The same gallery with its cards: captions, links and pictures, read from the slices that hold them."""
    shown = table.select(COLUMNS).filter(pl.col("uid").is_in(sorted(gallery.uids()))).collect()
    cards: dict[str, Card] = {}
    for (part, name), group in shown.sort("uid").group_by(["part", "slice"], maintain_order=True):
        texts, pictures = _read_slice(workspace, str(part), str(name), group["uid"].to_list())
        for row in group.iter_rows(named=True):
            uid = row["uid"]
            caption, url = texts.get(uid, ("", ""))
            cards[uid] = Card(
                uid=uid,
                caption=caption,
                url=url,
                image=small_picture(pictures.get(uid)),
                score=row["clip_score"],
                concept=row["concept"],
                repeats=row["repeats"],
                split=row["split"],
                part=row["part"],
            )
    return Gallery(**{name: getattr(gallery, name) for name in Gallery.__slots__ if name != "cards"}, cards=cards)


def small_picture(data: bytes | None, size_px: int = THUMBNAIL_PX) -> str | None:
    """A picture, decoded and encoded anew, as the data URI of a small JPEG."""
    picture = None if data is None else thumbnail(data, size_px)
    if picture is None:
        return None
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=78, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


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


def _read_slice(
    workspace: Workspace, part: str, name: str, uids: list[str]
) -> tuple[dict[str, tuple[str, str]], dict[str, bytes]]:
    """Caption and URL, and the stored picture, of some samples of a slice; what is no longer there is left out."""
    wanted = pa.array(uids)
    texts: dict[str, tuple[str, str]] = {}
    pictures: dict[str, bytes] = {}
    try:
        rows = read_table(workspace.table(part, "rows", name), ["uid", "caption", "url"])
        for row in rows.filter(pc.is_in(rows["uid"], wanted)).to_pylist():
            texts[row["uid"]] = (row["caption"] or "", row["url"] or "")
        media = read_table(workspace.table(part, "media", name), ["uid", "offset", "length"])
        media = media.filter(pc.and_(pc.is_in(media["uid"], wanted), pc.is_valid(media["length"])))
        if media.num_rows:
            with workspace.media_tar(part, name, media.schema.metadata).open("rb") as file:
                for row in media.to_pylist():
                    file.seek(row["offset"])
                    pictures[row["uid"]] = file.read(row["length"])
    except (DataError, FileNotFoundError):
        return texts, pictures  # an old release may outlive the slices that it came from
    return texts, pictures
