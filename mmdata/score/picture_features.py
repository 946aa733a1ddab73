"""Decode, embed and score the pictures of a slice; a frame of a clip is one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
from upath import UPath

from mmdata.score.decode import Decoder, Look, Member
from mmdata.score.scorer import ClipScorer, pair_scores

NO_MEMBER = Member(offset=-1, length=0)


@dataclass(frozen=True, slots=True)
class Pictures:
    """What was measured on the distinct pictures of a slice; a frame of a clip is one.

    Args:
        row, picture: int64 K, which row shows which picture, by row and then in the order of the frames.
        rows: N, of the slice.
        looks: M of them.
        embeddings: float32 M,D, of unit length; NaN where there is a problem.
        scores: float32 K, the cosine of each row's picture and caption; NaN without caption or result.
    """

    row: np.ndarray
    picture: np.ndarray
    rows: int
    looks: list[Look]
    embeddings: np.ndarray
    scores: np.ndarray

    @property
    def count(self) -> np.ndarray:
        """Pictures of each row, int64 N."""
        return np.bincount(self.row, minlength=self.rows)

    def of_rows(self) -> list[list[Look]]:
        """The looks of each row's pictures."""
        ends = np.cumsum(self.count)
        return [[self.looks[at] for at in self.picture[end - n : end]] for n, end in zip(self.count, ends, strict=True)]


def measure_pictures(
    samples: pl.DataFrame,
    tar: UPath,
    scorer: ClipScorer,
    threads: int,
    advance: Callable[[int], None],
    min_face_score: float | None = None,
) -> Pictures:
    """Decode, embed and score; pictures and captions that several rows share are done once.

    Args:
        samples: rows joined with media, sorted by uid: kind, caption, problem, status, ext, offset, length, further.
        advance: called with the rows done so far, after each batch.
        min_face_score: faces are counted from this confidence on; None: they are not looked for.
    """
    shown = picture_places(samples)
    members = shown.select("offset", "length").unique(maintain_order=True).with_row_index("picture")
    shown = shown.join(members, on=["offset", "length"], how="left", nulls_equal=True, maintain_order="left")
    row, picture = shown["row"].to_numpy().astype(np.int64), shown["picture"].to_numpy().astype(np.int64)

    captions = samples["caption"].fill_null("").str.strip_chars()
    distinct = captions.gather(np.unique(row)).unique(maintain_order=True).to_frame("caption")
    distinct = distinct.filter(pl.col("caption") != "").with_row_index("text")
    text_of_row = captions.to_frame().join(distinct, on="caption", how="left", maintain_order="left")["text"]

    looks: list[Look] = []
    embeddings = np.full((len(members), scorer.dim), np.nan, np.float32)
    places = [NO_MEMBER if at is None or n is None else Member(at, n) for _, at, n in members.iter_rows()]
    first_rows = shown.group_by("picture", maintain_order=True).first()["row"].to_numpy()
    with Decoder(tar, places, scorer.preprocess, scorer.batch_size, threads, min_face_score) as decoder:
        texts = scorer.embed_texts(distinct["caption"].to_list())  # while the first batches are decoded
        for batch in decoder:
            held = np.array([look.problem is None for look in batch.looks])
            chosen = embeddings[batch.start : batch.start + len(batch.looks)]
            chosen[held] = scorer.embed_images(batch.pixels)[held]
            looks += batch.looks
            advance(int(first_rows[len(looks) - 1]) + 1)
    scores = np.full(len(row), np.nan, np.float32)
    texts_of = text_of_row.gather(row).to_numpy()
    captioned = np.flatnonzero(~np.isnan(texts_of.astype(np.float64)))
    scores[captioned] = pair_scores(embeddings[picture[captioned]], texts[texts_of[captioned].astype(np.int64)])
    return Pictures(row, picture, len(samples), looks, embeddings, scores)


def picture_places(samples: pl.DataFrame) -> pl.DataFrame:
    """Where the pictures of rows lie: row, offset, length; a clip has one a frame, in their order.

    Args:
        samples: as for `measure_pictures`.
    """
    fetched = samples.with_row_index("row").filter(_fetched(), pl.col("kind").is_in(["image", "video"]))
    first = fetched.select("row", "offset", "length", frame=pl.lit(0, pl.Int64))
    frames = fetched.select("row", "further").explode("further").drop_nulls("further").unnest("further")
    frames = frames.filter(pl.col("ext").str.contains(r"^\d{3}\."))
    later = frames.select("row", "offset", "length", frame=pl.col("ext").str.slice(0, 3).cast(pl.Int64))
    return pl.concat([first, later]).sort("row", "frame").drop("frame")


def _fetched() -> pl.Expr:
    return pl.col("problem").is_null() & (pl.col("status") == "success")
