"""Lay out the features table: what was measured of pictures and sound, a row a uid."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa

from mmdata.samples import FEATURES
from mmdata.score.decode import Look
from mmdata.score.picture_features import Pictures
from mmdata.score.picture_measures import aspect, black_ratio, frozen_ratio
from mmdata.score.sound_features import Sound
from mmdata.score.text_measures import text_features


def features_table(samples: pl.DataFrame, pictures: Pictures, sounds: Mapping[int, Sound]) -> pa.Table:
    """Lay out one row a uid in the FEATURES schema.

    A bad row (`problem` in the rows table) has nulls throughout. A picture that cannot be decoded has a `problem`
    and no scores; so has one for which the model gives no finite numbers (`nan_score`). Of a clip the frames that
    can be decoded count; it has a problem where none can.

    Args:
        samples: as for `measure_pictures`, with uid, sha256, the sizes and faces beside.
        sounds: number of a row -> what was heard.
    """
    usable = samples["problem"].is_null()
    spoken = pl.Series([sounds[at].transcript if at in sounds else None for at in range(len(samples))], dtype=pl.String)
    own = samples.select(pl.when(usable).then("caption").alias("caption"))["caption"]
    text = text_features(pl.select(pl.coalesce(own, spoken)).to_series())
    rows = _row_scores(pictures)
    looks = pictures.of_rows()
    wanted = (pictures.count > 0) & (samples["caption"].fill_null("").str.strip_chars() != "").to_numpy()
    scored = np.isfinite(rows.mean)
    problems = [
        _problem(row_looks, bool(has), bool(want and not got), sounds.get(at))
        for at, (row_looks, has, want, got) in enumerate(zip(looks, rows.embedded, wanted, scored, strict=True))
    ]
    clip = (samples["kind"] == "video").to_numpy() & (pictures.count > 0)
    columns = {
        "uid": samples["uid"].to_arrow(),
        "clip_score": pa.array(rows.mean, pa.float32(), mask=~scored),
        "clip_score_max": pa.array(rows.best, pa.float32(), mask=~(scored & clip)),
        "frame_scores": _frame_scores(pictures, clip & scored),
        "embedding": _embedding_lists(rows.embeddings, rows.embedded),
        "phash": pa.array([_middle(own).phash if own else None for own in looks], pa.uint64()),
        **{name: text[name].to_arrow() for name in text.columns},
        "aspect": pa.array(_aspects(samples, looks), pa.float32()),
        "sharpness": pa.array([_median([look.sharpness for look in own]) for own in looks], pa.float32()),
        "black_ratio": pa.array(_of_clips(clip, looks, black_ratio), pa.float32()),
        "frozen_ratio": pa.array(_of_clips(clip, looks, frozen_ratio), pa.float32()),
        "faces": pa.array(_faces(samples, looks), pa.int32()),
        **_sound_columns(sounds, len(samples)),
        "problem": pa.array(problems, pa.string()),
        "media_sha256": samples.select(pl.when(_measured(rows.embedded, sounds)).then("sha256")).to_series().to_arrow(),
    }
    arrays = [
        columns[field.name].cast(field.type) if field.name in columns else pa.nulls(len(samples), field.type)
        for field in FEATURES
    ]
    return pa.Table.from_arrays(arrays, schema=FEATURES)


@dataclass(frozen=True, slots=True)
class _RowScores:
    """By row: float32 N,D of unit length, whether there is one, and the mean and the best of its pictures' scores."""

    embeddings: np.ndarray
    embedded: np.ndarray
    mean: np.ndarray
    best: np.ndarray


def _row_scores(pictures: Pictures) -> _RowScores:
    rows, (row, picture) = pictures.rows, (pictures.row, pictures.picture)
    finite = np.isfinite(pictures.embeddings).all(axis=1)[picture]
    sums = np.zeros((rows, pictures.embeddings.shape[1]), np.float32)
    np.add.at(sums, row[finite], pictures.embeddings[picture[finite]])
    counts = np.bincount(row[finite], minlength=rows)
    embedded = counts > 0
    several = counts > 1
    with np.errstate(invalid="ignore", divide="ignore"):
        sums[several] /= np.linalg.norm(sums[several], axis=1, keepdims=True)
        has = np.isfinite(pictures.scores) & finite
        mean = np.bincount(row[has], pictures.scores[has], rows) / np.bincount(row[has], minlength=rows)
    best = np.full(rows, -np.inf, np.float32)
    np.maximum.at(best, row[has], pictures.scores[has])
    return _RowScores(sums, embedded, mean.astype(np.float32), best)


def _measured(embedded: np.ndarray, sounds: Mapping[int, Sound]) -> pl.Series:
    """Which rows' stored bytes were measured: what an earlier run found in them holds as long as they are the same."""
    heard = np.zeros(len(embedded), bool)
    heard[list(sounds)] = True
    return pl.Series(embedded | heard)


def _problem(looks: Sequence[Look], embedded: bool, unscored: bool, sound: Sound | None) -> str | None:
    """Why a sample that was fetched lacks what it should have; the first thing that is wrong."""
    if looks and not embedded:
        return next((look.problem for look in looks if look.problem), None) or "nan_score"
    if unscored:
        return "nan_score"
    return sound.heard.problem if sound is not None else None


def _middle(looks: Sequence[Look]) -> Look:
    return looks[len(looks) // 2] if looks[len(looks) // 2].problem is None else looks[0]


def _faces(samples: pl.DataFrame, looks: Sequence[Sequence[Look]]) -> list[int | None]:
    """In the picture or frame with most; as they were counted before blurring, where they were blurred."""
    counted = [[look.faces for look in own if look.faces is not None] for own in looks]
    most = [max(own, default=None) for own in counted]
    return [own if told is None else told for told, own in zip(samples["faces"], most, strict=True)]


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None


def _of_clips(
    clip: np.ndarray, looks: Sequence[Sequence[Look]], measure: Callable[[Sequence[bytes]], float]
) -> list[float | None]:
    found: list[float | None] = []
    for is_clip, own in zip(clip, looks, strict=True):
        thumbs = [look.thumb for look in own if look.thumb is not None]
        found.append(measure(thumbs) if is_clip and thumbs else None)
    return found


def _aspects(samples: pl.DataFrame, looks: Sequence[Sequence[Look]]) -> list[float | None]:
    sizes = samples.select(
        pl.coalesce("original_width", "width").alias("w"), pl.coalesce("original_height", "height").alias("h")
    )
    return [
        aspect(w or own[0].width or 0, h or own[0].height or 0) if own else None
        for (w, h), own in zip(sizes.iter_rows(), looks, strict=True)
    ]


def _sound_columns(sounds: Mapping[int, Sound], rows: int) -> dict[str, pa.Array]:
    def column(read: Callable[[Sound], float | None]) -> pa.Array:
        return pa.array([read(sounds[at]) if at in sounds else None for at in range(rows)], pa.float32())

    texts = [sounds[at].transcript if at in sounds else None for at in range(rows)]
    return {
        "audio_rms_db": column(lambda one: one.heard.audio_rms_db),
        "silence_ratio": column(lambda one: one.heard.silence_ratio),
        "speech_ratio": column(lambda one: one.heard.speech_ratio),
        "speech_overlap": column(lambda one: one.heard.speech_overlap),
        "audio_score": column(lambda one: one.audio_score),
        "transcript": pa.array(texts, pa.string()),
    }


def _frame_scores(pictures: Pictures, wanted: np.ndarray) -> pa.Array:
    """list<float>, null for rows that are no clips; a frame that cannot be scored is null in it."""
    ends, count = np.cumsum(pictures.count), pictures.count
    lists = [
        [None if np.isnan(one) else float(one) for one in pictures.scores[end - n : end]] if want else None
        for end, n, want in zip(ends, count, wanted, strict=True)
    ]
    return pa.array(lists, pa.list_(pa.float32()))


def _embedding_lists(embeddings: np.ndarray, embedded: np.ndarray) -> pa.Array:
    """list<fp16>, null where there is no embedding."""
    dim = embeddings.shape[1]
    values = embeddings[embedded].astype(np.float16).ravel()
    ends = np.concatenate([[0], np.cumsum(np.where(embedded, dim, 0))]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(ends), pa.array(values, pa.float16()), mask=pa.array(~embedded))
