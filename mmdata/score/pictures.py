"""Score a slice's pictures against their captions, and lay out the features table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa
from upath import UPath

from mmdata.samples import FEATURES
from mmdata.score.clip import ClipScorer, pair_scores
from mmdata.score.decode import Decoder, Look, Member
from mmdata.score.image import aspect
from mmdata.score.text import text_features

NO_MEMBER = Member(offset=-1, length=0)


@dataclass(frozen=True, slots=True)
class Pictures:
    """What was measured on the distinct pictures of a slice.

    Args:
        of_row: int64 N, the picture of each row; -1 for a row without one.
        looks: M of them.
        embeddings: float32 M,D, of unit length; NaN where there is a problem.
        scores: float32 N, the cosine of each row's picture and caption; NaN without picture, caption or result.
    """

    of_row: np.ndarray
    looks: list[Look]
    embeddings: np.ndarray
    scores: np.ndarray


def measure_pictures(
    samples: pl.DataFrame, tar: UPath, scorer: ClipScorer, threads: int, advance: Callable[[int], None]
) -> Pictures:
    """Decode, embed and score; pictures and captions that several rows share are done once.

    Args:
        samples: rows joined with media, sorted by uid: kind, caption, problem, status, offset, length.
        advance: called with the rows done so far, after each batch.
    """
    fetched = samples.with_row_index("row").filter(_fetched(), pl.col("kind") == "image")
    members = fetched.select("offset", "length").unique(maintain_order=True).with_row_index("picture")
    fetched = fetched.join(members, on=["offset", "length"], how="left", nulls_equal=True, maintain_order="left")
    of_row = np.full(len(samples), -1, np.int64)
    of_row[fetched["row"].to_numpy()] = fetched["picture"].to_numpy()

    captioned = fetched.filter(pl.col("caption").str.strip_chars() != "")
    captions = captioned.select("caption").unique(maintain_order=True).with_row_index("text")
    captioned = captioned.join(captions, on="caption", how="left", maintain_order="left")

    looks: list[Look] = []
    embeddings = np.full((len(members), scorer.dim), np.nan, np.float32)
    places = [NO_MEMBER if at is None or n is None else Member(at, n) for _, at, n in members.iter_rows()]
    first_rows = fetched.group_by("picture", maintain_order=True).first()["row"].to_numpy()
    with Decoder(tar, places, scorer.preprocess, scorer.batch_size, threads) as decoder:
        texts = scorer.embed_texts(captions["caption"].to_list())  # while the first batches are decoded
        for batch in decoder:
            held = np.array([look.problem is None for look in batch.looks])
            chosen = embeddings[batch.start : batch.start + len(batch.looks)]
            chosen[held] = scorer.embed_images(batch.pixels)[held]
            looks += batch.looks
            advance(int(first_rows[len(looks) - 1]) + 1)
    scores = np.full(len(samples), np.nan, np.float32)
    rows = captioned["row"].to_numpy()
    scores[rows] = pair_scores(embeddings[of_row[rows]], texts[captioned["text"].to_numpy()])
    return Pictures(of_row, looks, embeddings, scores)


def features_table(samples: pl.DataFrame, pictures: Pictures) -> pa.Table:
    """Lay out one row a uid in the FEATURES schema.

    A bad row (`problem` in the rows table) has nulls throughout. A picture that cannot be decoded has a `problem`
    and no scores; so has one for which the model gives no finite numbers (`nan_score`).

    Args:
        samples: as for `measure_pictures`, with uid, sha256 and the sizes beside.
    """
    looks = [pictures.looks[at] if at >= 0 else Look() for at in pictures.of_row]
    usable = samples["problem"].is_null()
    text = text_features(samples.select(pl.when(usable).then("caption").alias("caption"))["caption"])
    finite = np.isfinite(pictures.embeddings).all(axis=1)
    embedded = np.array([at >= 0 and bool(finite[at]) for at in pictures.of_row], bool)
    scored = np.isfinite(pictures.scores) & embedded
    wanted = (pictures.of_row >= 0) & (samples["caption"].fill_null("").str.strip_chars() != "").to_numpy()
    problems = [
        look.problem or ("nan_score" if (at >= 0 and not has) or (want and not got) else None)
        for look, at, has, want, got in zip(looks, pictures.of_row, embedded, wanted, scored, strict=True)
    ]
    sizes = samples.select(
        pl.coalesce("original_width", "width").alias("w"), pl.coalesce("original_height", "height").alias("h")
    )
    columns = {
        "uid": samples["uid"].to_arrow(),
        "clip_score": pa.array(pictures.scores, pa.float32(), mask=~scored),
        "embedding": _embedding_lists(pictures, embedded),
        "phash": pa.array([look.phash for look in looks], pa.uint64()),
        **{name: text[name].to_arrow() for name in text.columns},
        "aspect": pa.array(
            [
                aspect(w or look.width or 0, h or look.height or 0) if at >= 0 else None
                for (w, h), look, at in zip(sizes.iter_rows(), looks, pictures.of_row, strict=True)
            ],
            pa.float32(),
        ),
        "sharpness": pa.array([look.sharpness for look in looks], pa.float32()),
        "problem": pa.array(problems, pa.string()),
        "media_sha256": samples.select(pl.when(pl.Series(embedded)).then("sha256")).to_series().to_arrow(),
    }
    arrays = [
        columns[field.name].cast(field.type) if field.name in columns else pa.nulls(len(samples), field.type)
        for field in FEATURES
    ]
    return pa.Table.from_arrays(arrays, schema=FEATURES)


def _fetched() -> pl.Expr:
    return pl.col("problem").is_null() & (pl.col("status") == "success")


def _embedding_lists(pictures: Pictures, embedded: np.ndarray) -> pa.Array:
    """list<fp16>, null where there is no embedding."""
    dim = pictures.embeddings.shape[1]
    values = pictures.embeddings[pictures.of_row[embedded]].astype(np.float16).ravel()
    ends = np.concatenate([[0], np.cumsum(np.where(embedded, dim, 0))]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(ends), pa.array(values, pa.float16()), mask=pa.array(~embedded))
