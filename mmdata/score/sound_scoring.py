"""Measure the stored sound of a slice in threads, and run the audio models that the configuration names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import polars as pl
from upath import UPath

from mmdata.config import Score
from mmdata.score.sound_measures import SoundMeasures, caption_spans, measure_sound

SOUNDS_IN_MEMORY = 64


@dataclass(frozen=True, slots=True)
class SoundFeatures:
    """What was measured of a row's sound."""

    measures: SoundMeasures
    audio_score: float | None = None  # cosine of sound and caption by `score.audio_model`
    transcript: str | None = None  # the spoken words by `score.transcriber`, where the row has no caption


def score_sounds(samples: pl.DataFrame, tar: UPath, score: Score, threads: int) -> dict[int, SoundFeatures]:
    """Row number -> features of its sound, for each row that has sound.

    Args:
        samples: rows joined with media: caption, problem, status, start_s, extra, ext, offset, length, further,
            audio_s.
        tar: holds the stored media.

    Raises:
        UserError: a package or a model is missing.
    """
    with_sound = samples.with_row_index("row").filter(
        pl.col("problem").is_null(), pl.col("status") == "success", pl.col("audio_s").is_not_null()
    )
    places = [(row, place) for row in with_sound.iter_rows(named=True) if (place := _sound_place(row)) is not None]
    features: dict[int, SoundFeatures] = {}
    if not places:
        return features
    with tar.open("rb") as file, ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(places), SOUNDS_IN_MEMORY):
            batch = places[start : start + SOUNDS_IN_MEMORY]
            sounds = []
            for _, (offset, length) in batch:
                file.seek(offset)
                sounds.append(file.read(length))
            rows = [row for row, _ in batch]
            measures = list(pool.map(measure_sound, sounds, [caption_spans(row) for row in rows]))
            for row, sound in zip(rows, _run_audio_models(rows, measures, score), strict=True):
                # drop the wave, or memory would hold the sound of the whole slice
                features[int(row["row"])] = replace(sound, measures=replace(sound.measures, wave=None))
    return features


def _sound_place(row: Mapping[str, Any]) -> tuple[int, int] | None:
    """Offset and length of a row's FLAC file in the tar."""
    for member in (row, *(row["further"] or [])):
        if member["ext"] == "flac":
            return member["offset"], member["length"]
    return None


def _run_audio_models(
    rows: Sequence[Mapping[str, Any]], measures: Sequence[SoundMeasures], score: Score
) -> list[SoundFeatures]:
    """Score sounds that have a caption, and transcribe sounds that have none."""
    features = [SoundFeatures(measured) for measured in measures]
    waves = {number: measured.wave for number, measured in enumerate(measures) if measured.wave is not None}
    if score.audio_model:
        from mmdata.score.audio_models import audio_device, clap_scorer

        captions = {number: rows[number]["caption"] for number in waves if rows[number]["caption"]}
        model = clap_scorer(score.audio_model, audio_device(score))
        cosines = model.scores([waves[number] for number in captions], list(captions.values()))
        for number, cosine in zip(captions, cosines, strict=True):
            features[number] = replace(features[number], audio_score=float(cosine))
    if score.transcriber:
        from mmdata.score.audio_models import audio_device, transcriber

        uncaptioned = [number for number in waves if not rows[number]["caption"]]
        texts = transcriber(score.transcriber, audio_device(score)).transcripts([waves[n] for n in uncaptioned])
        for number, text in zip(uncaptioned, texts, strict=True):
            features[number] = replace(features[number], transcript=text or None)
    return features
