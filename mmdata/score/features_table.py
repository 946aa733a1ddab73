"""Build the features table of a slice from what was measured of its pictures, sound and captions, a row per uid."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa

from mmdata.documents import DOCUMENT
from mmdata.samples import FEATURES
from mmdata.score.caption_vectors import vector_lists
from mmdata.score.decode import PictureMeasures
from mmdata.score.picture_measures import aspect, black_ratio, frozen_ratio
from mmdata.score.picture_scoring import PictureFeatures
from mmdata.score.sound_measures import SoundMeasures
from mmdata.score.sound_scoring import SoundFeatures
from mmdata.score.text_measures import text_features

NO_SOUND = SoundFeatures(SoundMeasures())
SOUND_COLUMNS = ("audio_rms_db", "silence_ratio", "speech_ratio", "speech_overlap")


def features_table(
    samples: pl.DataFrame, pictures: PictureFeatures, sounds: Mapping[int, SoundFeatures], keep_texts: bool = True
) -> pa.Table:
    """Build the table: one row per uid, in the FEATURES schema.

    A bad row (`problem` in the rows table) has nulls throughout. A picture that cannot be decoded has a `problem`
    and no scores, and so has one for which the model returns numbers that are not finite (`nan_score`). Of a clip,
    the frames that can be decoded count; it has a problem where none can. So it is with the pictures of a document.
    A document has no perceptual hash: it is not a duplicate of another that shows one of its pictures.

    Args:
        samples: as for `score_pictures`, and also uid, sha256, the sizes and faces.
        sounds: row number -> features of its sound.
        keep_texts: keep the vectors of the captions, too.
    """
    row_sounds = [sounds.get(row, NO_SOUND) for row in range(len(samples))]
    row_scores = _row_scores(pictures)
    measures = pictures.measures_by_row()
    has_caption = (samples["caption"].fill_null("").str.strip_chars() != "").to_numpy()
    should_score = (pictures.pictures_per_row > 0) & has_caption
    is_scored = np.isfinite(row_scores.mean)
    problems = [
        _problem(row_measures, bool(embedded), bool(lacks_score), sound)
        for row_measures, embedded, lacks_score, sound in zip(
            measures, row_scores.has_embedding, should_score & ~is_scored, row_sounds, strict=True
        )
    ]
    is_clip = (samples["kind"] == "video").to_numpy() & (pictures.pictures_per_row > 0)
    is_document = (samples["kind"] == DOCUMENT).to_numpy()
    has_several = is_clip | (is_document & (pictures.pictures_per_row > 0))
    captions = samples.select(pl.when(pl.col("problem").is_null()).then("caption").alias("caption"))["caption"]
    transcripts = pl.Series([sound.transcript for sound in row_sounds], dtype=pl.String)
    text = text_features(pl.select(pl.coalesce(captions, transcripts)).to_series())
    columns = {
        "uid": samples["uid"].to_arrow(),
        "clip_score": pa.array(row_scores.mean, pa.float32(), mask=~is_scored),
        "clip_score_max": pa.array(row_scores.best, pa.float32(), mask=~(is_scored & has_several)),
        "frame_scores": _frame_scores(pictures, has_several & is_scored),
        "embedding": vector_lists(row_scores.embeddings[row_scores.has_embedding], row_scores.has_embedding),
        "text_embedding": pictures.texts.column(samples["caption"], is_scored & keep_texts),
        "phash": pa.array(_hashes(measures, is_document), pa.uint64()),
        **{name: text[name].to_arrow() for name in text.columns},
        "aspect": pa.array(_aspects(samples, measures), pa.float32()),
        "sharpness": pa.array([_median_sharpness(m) for m in measures], pa.float32()),
        "black_ratio": pa.array(_clip_measures(is_clip, measures, black_ratio), pa.float32()),
        "frozen_ratio": pa.array(_clip_measures(is_clip, measures, frozen_ratio), pa.float32()),
        "faces": pa.array(_faces(samples, measures), pa.int32()),
        **{name: pa.array([getattr(s.measures, name) for s in row_sounds], pa.float32()) for name in SOUND_COLUMNS},
        "audio_score": pa.array([sound.audio_score for sound in row_sounds], pa.float32()),
        "transcript": transcripts.to_arrow(),
        "problem": pa.array(problems, pa.string()),
        "media_sha256": _measured_sha256(samples, row_scores.has_embedding, sounds),
    }
    arrays = [
        columns[field.name].cast(field.type) if field.name in columns else pa.nulls(len(samples), field.type)
        for field in FEATURES
    ]
    return pa.Table.from_arrays(arrays, schema=FEATURES)


@dataclass(frozen=True, slots=True)
class _RowScores:
    """Embeddings and scores of the N rows.

    Args:
        mean, best: float32 N, of the scores of the row's pictures; not finite where there is none.
    """

    embeddings: np.ndarray  # float32 N,D of unit length: the mean of the row's pictures, normalised
    has_embedding: np.ndarray  # bool N
    mean: np.ndarray
    best: np.ndarray


def _row_scores(pictures: PictureFeatures) -> _RowScores:
    row_count, row, picture = pictures.row_count, pictures.row, pictures.picture
    is_finite = np.isfinite(pictures.embeddings).all(axis=1)[picture]
    embeddings = np.zeros((row_count, pictures.embeddings.shape[1]), np.float32)
    np.add.at(embeddings, row[is_finite], pictures.embeddings[picture[is_finite]])
    counts = np.bincount(row[is_finite], minlength=row_count)
    several = counts > 1  # the embedding of a single picture keeps its bits
    with np.errstate(invalid="ignore", divide="ignore"):
        embeddings[several] /= np.linalg.norm(embeddings[several], axis=1, keepdims=True)
        is_scored = np.isfinite(pictures.scores) & is_finite
        scored_rows, scores = row[is_scored], pictures.scores[is_scored]
        mean = np.bincount(scored_rows, scores, row_count) / np.bincount(scored_rows, minlength=row_count)
    best = np.full(row_count, -np.inf, np.float32)
    np.maximum.at(best, scored_rows, scores)
    return _RowScores(embeddings, counts > 0, mean.astype(np.float32), best)


def _measured_sha256(samples: pl.DataFrame, has_embedding: np.ndarray, sounds: Mapping[int, SoundFeatures]) -> pa.Array:
    """Hashes of the media that were measured: a later run reuses the features while the bytes stay the same."""
    has_sound = np.zeros(len(samples), bool)
    has_sound[list(sounds)] = True
    return samples.select(pl.when(pl.Series(has_embedding | has_sound)).then("sha256")).to_series().to_arrow()


def _problem(
    measures: Sequence[PictureMeasures], embedded: bool, lacks_score: bool, sound: SoundFeatures
) -> str | None:
    """The first reason why a fetched sample lacks what it should have, or None."""
    if measures and not embedded:
        return next((measured.problem for measured in measures if measured.problem), None) or "nan_score"
    if lacks_score:
        return "nan_score"
    return sound.measures.problem


def _hashes(measures: Sequence[Sequence[PictureMeasures]], is_document: np.ndarray) -> list[int | None]:
    """The perceptual hash of each row's picture or middle frame; None for a document."""
    return [_middle(m).phash if m and not skipped else None for m, skipped in zip(measures, is_document, strict=True)]


def _middle(measures: Sequence[PictureMeasures]) -> PictureMeasures:
    """The measures of the middle frame, or of the first where the middle one cannot be decoded."""
    middle = measures[len(measures) // 2]
    return middle if middle.problem is None else measures[0]


def _faces(samples: pl.DataFrame, measures: Sequence[Sequence[PictureMeasures]]) -> list[int | None]:
    """Faces in the picture, or in the frame with most; where faces were blurred, those counted before the blurring."""
    counts = [[measured.faces for measured in m if measured.faces is not None] for m in measures]
    return [
        max(row_counts, default=None) if counted_before is None else counted_before
        for counted_before, row_counts in zip(samples["faces"], counts, strict=True)
    ]


def _median_sharpness(measures: Sequence[PictureMeasures]) -> float | None:
    values = [measured.sharpness for measured in measures if measured.sharpness is not None]
    return float(np.median(values)) if values else None


def _clip_measures(
    is_clip: np.ndarray, measures: Sequence[Sequence[PictureMeasures]], measure: Callable[[Sequence[bytes]], float]
) -> list[float | None]:
    """A measure of the frames' thumbnails for each clip; None for other rows."""
    values: list[float | None] = []
    for row_is_clip, row_measures in zip(is_clip, measures, strict=True):
        thumbnails = [measured.thumbnail for measured in row_measures if measured.thumbnail is not None]
        values.append(measure(thumbnails) if row_is_clip and thumbnails else None)
    return values


def _aspects(samples: pl.DataFrame, measures: Sequence[Sequence[PictureMeasures]]) -> list[float | None]:
    """Aspect of the original picture; of the stored one where the media table does not know the original's size."""
    sizes = samples.select(
        pl.coalesce("original_width", "width").alias("width"), pl.coalesce("original_height", "height").alias("height")
    )
    return [
        aspect(width or m[0].width or 0, height or m[0].height or 0) if m else None
        for (width, height), m in zip(sizes.iter_rows(), measures, strict=True)
    ]


def _frame_scores(pictures: PictureFeatures, is_wanted: np.ndarray) -> pa.Array:
    """list<float>: null for rows that are not wanted; a frame that cannot be scored is null inside of its list."""
    counts = pictures.pictures_per_row
    lists = [
        [None if np.isnan(score) else float(score) for score in pictures.scores[end - count : end]] if wanted else None
        for end, count, wanted in zip(np.cumsum(counts), counts, is_wanted, strict=True)
    ]
    return pa.array(lists, pa.list_(pa.float32()))
