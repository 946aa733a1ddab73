"""Decode, embed and score the pictures of a slice; every frame of a clip, and every picture of a document, is one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
from upath import UPath

from mmdata.documents import DOCUMENT, PICTURED, neighbouring_texts, texts_between
from mmdata.score.caption_vectors import CaptionVectors
from mmdata.score.decode import Decoder, Member, PictureMeasures
from mmdata.score.scorer import ClipScorer, pair_scores


@dataclass(frozen=True, slots=True)
class PictureFeatures:
    """What was measured on the M distinct pictures of a slice, and which of its N rows show them.

    A row and a picture that it shows are a pair; there are K pairs, sorted by row and then by frame.

    Args:
        row, picture: int64 K, row number and picture number of each pair.
    """

    row: np.ndarray
    picture: np.ndarray
    row_count: int  # N
    measures: list[PictureMeasures]  # M, one for each picture
    embeddings: np.ndarray  # float32 M,D, of unit length; NaN where there is a problem
    scores: np.ndarray  # float32 K, cosine of each pair's picture and text; NaN without a text or a result
    texts: CaptionVectors

    @property
    def pictures_per_row(self) -> np.ndarray:
        """int64 N."""
        return np.bincount(self.row, minlength=self.row_count)

    def measures_by_row(self) -> list[list[PictureMeasures]]:
        """The measures of each row's pictures, N lists."""
        picture_numbers = np.split(self.picture, np.cumsum(self.pictures_per_row)[:-1]) if self.row_count else []
        return [[self.measures[number] for number in numbers] for numbers in picture_numbers]


def score_pictures(
    samples: pl.DataFrame,
    captions: pl.Series,
    tar: UPath,
    scorer: ClipScorer,
    threads: int,
    advance: Callable[[int], None],
    min_face_score: float | None = None,
) -> PictureFeatures:
    """Decode, embed and score pictures; a picture or caption that several rows share is embedded once.

    Args:
        samples: rows joined with media, sorted by uid: kind, caption, problem, status, ext, offset, length, further;
            if there are documents, also `marked` (see `documents.with_words`).
        captions: the texts to embed (see `distinct_captions`): those of the samples, and any others.
        tar: holds the stored media.
        advance: called with the number of rows done so far, after each batch.
        min_face_score: count the faces that are detected with at least this confidence; None: do not count faces.
    """
    pairs = picture_members(samples)
    members = pairs.select("offset", "length").unique(maintain_order=True).with_row_index("picture")
    pairs = pairs.join(members, on=["offset", "length"], how="left", nulls_equal=True, maintain_order="left")
    row, picture = pairs["row"].to_numpy().astype(np.int64), pairs["picture"].to_numpy().astype(np.int64)

    measures: list[PictureMeasures] = []
    embeddings = np.full((len(members), scorer.dim), np.nan, np.float32)
    # the decoder reports a member without a position as `missing_bytes`
    places = [Member(-1 if at is None else at, length or 0) for _, at, length in members.iter_rows()]
    first_row = pairs.group_by("picture", maintain_order=True).first()["row"].to_numpy()
    with Decoder(tar, places, scorer.preprocess, scorer.batch_size, threads, min_face_score) as decoder:
        # while the first batches are being decoded
        texts = CaptionVectors(captions, scorer.embed_texts(captions.to_list()))
        for batch in decoder:
            decoded = np.array([measured.problem is None for measured in batch.measures])
            batch_embeddings = embeddings[batch.start : batch.start + len(batch.measures)]
            batch_embeddings[decoded] = scorer.embed_images(batch.pixels)[decoded]
            measures += batch.measures
            advance(int(first_row[len(measures) - 1]) + 1)
    scores = np.full(len(row), np.nan, np.float32)
    pair, compared = _texts_of_pairs(samples, pairs)
    text = texts.numbers(compared)
    pair, text = pair[text >= 0], text[text >= 0]
    scores[pair] = -np.inf
    with np.errstate(invalid="ignore"):  # NaN, where the model gives NaN
        np.maximum.at(scores, pair, pair_scores(embeddings[picture[pair]], texts.vectors[text]))
    return PictureFeatures(row, picture, len(samples), measures, embeddings, scores, texts)


def is_pictured() -> pl.Expr:
    """Whether a row, joined with its media, has stored pictures."""
    is_fetched = pl.col("problem").is_null() & (pl.col("status") == "success")
    return is_fetched & pl.col("kind").is_in(PICTURED)


def picture_members(samples: pl.DataFrame) -> pl.DataFrame:
    """Where the pictures of rows lie in the tar: row, frame, offset, length.

    A clip has one line for each frame, and a document one for each stored picture; `frame` is its number, and they are
    sorted by it.
    """
    fetched = samples.with_row_index("row").filter(is_pictured())
    number = pl.col("ext").str.extract(r"^(\d{3})\.").cast(pl.Int64)
    first = fetched.select("row", number.fill_null(0).alias("frame"), "offset", "length")
    # the first frame (or the picture) stands in the row's own columns, later frames (`001.jpg`, ...) in `further`
    further = fetched.select("row", "further").explode("further").drop_nulls("further").unnest("further")
    later = further.select("row", number.alias("frame"), "offset", "length").drop_nulls("frame")
    return pl.concat([first, later]).sort("row", "frame")


def _texts_of_pairs(samples: pl.DataFrame, pairs: pl.DataFrame) -> tuple[np.ndarray, pl.Series]:
    """The texts that each picture is compared with: numbers of pairs, int64, and a text for each of them.

    They are the caption; of a document the nearest text before the picture and the nearest one after it.
    """
    row = pairs["row"].to_numpy()
    is_document = (samples["kind"] == DOCUMENT).to_numpy()[row]
    pair = np.flatnonzero(~is_document)
    captions = samples["caption"].cast(pl.String).gather(row[pair])
    if not is_document.any():
        return pair, captions
    shown, frames = np.flatnonzero(is_document), pairs["frame"].to_numpy()
    neighbours = [
        (number, text)
        for number, marked in zip(shown.tolist(), samples["marked"].gather(row[shown]), strict=True)
        for text in neighbouring_texts(texts_between(marked), int(frames[number]))
    ]
    of_documents = pl.DataFrame(neighbours, {"pair": pl.Int64, "text": pl.String}, orient="row")
    return np.concatenate([pair, of_documents["pair"].to_numpy()]), pl.concat([captions, of_documents["text"]])
