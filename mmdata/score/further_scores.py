"""Scores beside the CLIP score that need pixels: which there are, and the columns `score_<name>` made of them.

Each is computed by a pass of its own over the stored media, for the rows that do not have it yet. So turning one on
measures nothing else again, and no score is computed twice for the same file by the same model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Protocol

import numpy as np
import polars as pl
import pyarrow as pa
from upath import UPath

from mmdata.config import Score
from mmdata.samples import FEATURES, SCORE_PREFIX
from mmdata.score.caption_vectors import plain_captions
from mmdata.score.decode import Decoder, Member
from mmdata.score.feature_reuse import captions_to_embed
from mmdata.score.networks import network_settings
from mmdata.score.nsfw import NsfwScore
from mmdata.score.picture_scoring import is_pictured, picture_members, score_pictures
from mmdata.score.preprocess import Preprocess
from mmdata.score.scorer import ClipScorer, load_scorer
from mmdata.score.text_area import TextAreaScore

METADATA_KEY = "further_scores"


class FurtherScore(Protocol):
    """A score of rows.

    Attributes:
        name: the column is `score_<name>`.
        fingerprint: of the model and the code; scores of different ones are not mixed.
        needs_caption: only rows with a caption have the score.
    """

    name: str
    fingerprint: str
    needs_caption: bool

    def of_rows(self, samples: pl.DataFrame, tar: UPath, threads: int) -> np.ndarray:
        """The scores of N rows, float32, NaN where there is none; `samples` are rows joined with media."""


class PictureModel(Protocol):
    """A network that scores pictures without their captions."""

    name: str
    fingerprint: str
    preprocess: Preprocess
    batch_size: int

    def of_pictures(self, pixels: np.ndarray, sizes: Sequence[tuple[int, int]]) -> np.ndarray:
        """The scores of N pictures, float32."""

    def of_clip(self, scores: np.ndarray) -> float:
        """The score of a clip, from those of its frames."""


class PictureScore:
    """The score that a model of pictures gives to rows; a picture that several rows share is scored once."""

    needs_caption = False

    def __init__(self, model: PictureModel) -> None:
        self.name, self.fingerprint, self._model = model.name, model.fingerprint, model

    def of_rows(self, samples: pl.DataFrame, tar: UPath, threads: int) -> np.ndarray:
        """As in `FurtherScore`."""
        model = self._model
        pairs = picture_members(samples)
        members = pairs.select("offset", "length").unique(maintain_order=True).with_row_index("picture")
        pairs = pairs.join(members, on=["offset", "length"], how="left", nulls_equal=True, maintain_order="left")
        places = [Member(-1 if at is None else at, length or 0) for _, at, length in members.iter_rows()]
        of_pictures = np.full(len(places), np.nan, np.float32)
        with Decoder(tar, places, model.preprocess, model.batch_size, threads) as decoder:
            for batch in decoder:
                good = [n for n, measured in enumerate(batch.measures) if measured.problem is None]
                sizes = [(batch.measures[n].height or 0, batch.measures[n].width or 0) for n in good]
                if good:
                    of_pictures[batch.start + np.array(good)] = model.of_pictures(batch.pixels[good], sizes)
        scores = np.full(len(samples), np.nan, np.float32)
        for (row,), pictures in pairs.group_by("row"):
            of_row = of_pictures[pictures["picture"].to_numpy()]
            if np.isfinite(of_row).any():
                scores[row] = model.of_clip(of_row[np.isfinite(of_row)])
        return scores


class PairScore:
    """The cosine of picture and caption by a further dual encoder; of a clip the mean over its frames."""

    needs_caption = True

    def __init__(self, name: str, scorer: ClipScorer) -> None:
        self.name, self.fingerprint, self._scorer = name, scorer.fingerprint, scorer

    def of_rows(self, samples: pl.DataFrame, tar: UPath, threads: int) -> np.ndarray:
        """As in `FurtherScore`."""
        captions = captions_to_embed(samples, FEATURES.empty_table(), keep_texts=False)
        pictures = score_pictures(samples, captions, tar, self._scorer, threads, lambda done: None)
        is_scored = np.isfinite(pictures.scores)
        rows, scores = pictures.row[is_scored], pictures.scores[is_scored]
        with np.errstate(invalid="ignore"):
            return (np.bincount(rows, scores, len(samples)) / np.bincount(rows, minlength=len(samples))).astype(
                np.float32
            )


def further_scores(score: Score, threads: int) -> list[FurtherScore]:
    """The scores that the configuration names, loaded: those of pictures, then the networks.

    Raises:
        UserError: a package or a model is missing.
    """
    scores: list[FurtherScore] = [
        PictureScore(_picture_model(name, threads)) for name in score.further_scores if name not in score.networks
    ]
    for name in score.networks:
        scorer = load_scorer(network_settings(score, name), beside=len(score.networks))
        scores.append(PairScore(name, scorer))
    return scores


@cache
def _picture_model(name: str, threads: int) -> PictureModel:
    models: dict[str, type[NsfwScore] | type[TextAreaScore]] = {"nsfw": NsfwScore, "text_area": TextAreaScore}
    return models[name](threads)


def with_further_scores(
    table: pa.Table,
    samples: pl.DataFrame,
    tar: UPath,
    earlier: pa.Table | None,
    scores: Sequence[FurtherScore],
    threads: int,
) -> tuple[pa.Table, dict[str, int]]:
    """The features table of a slice with a column a score, and how many rows were scored for it now.

    Args:
        table: features, with metadata, sorted by uid.
        samples: rows joined with media, sorted by uid: as for `score_pictures`.
        tar: holds the stored media.
        earlier: the slice's features table of an earlier run, with or without such columns.
    """
    measured = pl.DataFrame(table.select(["uid", "problem", "media_sha256"]))
    has_pixels = (samples.select(is_pictured()).to_series() & measured["problem"].is_null()).fill_null(value=False)
    has_caption = plain_captions(samples["caption"]) != ""
    counts: dict[str, int] = {}
    fingerprints: dict[str, str] = {}
    for score in scores:
        values = _kept(measured, earlier, score)
        can_have = has_pixels & has_caption if score.needs_caption else has_pixels
        missing = (can_have & values.is_null()).to_numpy()
        if missing.any():
            new = score.of_rows(samples.filter(pl.Series(missing)), tar, threads)
            values = values.scatter(np.flatnonzero(missing), pl.Series(new).fill_nan(None))
        name = SCORE_PREFIX + score.name
        table = table.append_column(pa.field(name, pa.float32()), values.to_arrow().cast(pa.float32()))
        counts |= {name: len(values) - values.null_count(), f"{name}_made": int(missing.sum())}
        fingerprints[score.name] = score.fingerprint
    metadata = {METADATA_KEY: json.dumps(fingerprints, sort_keys=True)}
    return table.replace_schema_metadata({**(table.schema.metadata or {}), **metadata}), counts


def score_fingerprints(metadata: Mapping[bytes, bytes] | None) -> dict[str, str]:
    """Name -> fingerprint of the scores that a features table's schema metadata names."""
    fingerprints: dict[str, str] = json.loads((metadata or {}).get(METADATA_KEY.encode(), b"{}"))
    return fingerprints


def _kept(measured: pl.DataFrame, earlier: pa.Table | None, score: FurtherScore) -> pl.Series:
    """The scores that an earlier run gave to the same files by the same model, float32, null elsewhere."""
    column = SCORE_PREFIX + score.name
    nothing = pl.Series(column, [None] * len(measured), pl.Float32)
    if earlier is None or score_fingerprints(earlier.schema.metadata).get(score.name) != score.fingerprint:
        return nothing
    before = pl.DataFrame(earlier.select(["uid", "media_sha256", column]))
    joined = measured.select("uid", "media_sha256").join(
        before, on="uid", how="left", suffix="_before", maintain_order="left"
    )
    same_file = pl.col("media_sha256") == pl.col("media_sha256_before")
    return joined.select(pl.when(same_file).then(pl.col(column)).alias(column)).to_series()
