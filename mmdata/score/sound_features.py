"""Measure the sound of a slice: each stored sound once, in threads, and by the models that are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import polars as pl
from upath import UPath

from mmdata.config import Score
from mmdata.score.sound_measures import Heard, caption_spans, listen_all

AT_ONCE = 64  # sounds in memory


@dataclass(frozen=True, slots=True)
class Sound:
    """What was found in a row's sound.

    Args:
        audio_score: cosine of sound and caption by score.audio_model.
        transcript: what is said, by score.transcriber, where the row has no caption.
    """

    heard: Heard
    audio_score: float | None = None
    transcript: str | None = None


def measure_sounds(samples: pl.DataFrame, tar: UPath, score: Score, threads: int) -> dict[int, Sound]:
    """Number of a row -> what was heard, for each row that has sound.

    Args:
        samples: rows joined with media: caption, problem, status, start_s, extra, ext, offset, length, further,
            audio_s.

    Raises:
        UserError: a package or a model is missing.
    """
    held = samples.with_row_index("row").filter(
        pl.col("problem").is_null(), pl.col("status") == "success", pl.col("audio_s").is_not_null()
    )
    rows = [row for row in held.iter_rows(named=True) if _place(row) is not None]
    found: dict[int, Sound] = {}
    if not rows:
        return found
    with tar.open("rb") as file:
        for start in range(0, len(rows), AT_ONCE):
            some = rows[start : start + AT_ONCE]
            sounds = []
            for row in some:
                offset, length = _place(row) or (0, 0)
                file.seek(offset)
                sounds.append((file.read(length), caption_spans(row)))
            heard = listen_all(sounds, threads)
            for row, one in zip(some, _modelled(some, heard, score), strict=True):
                found[int(row["row"])] = replace(one, heard=replace(one.heard, wave=None))
    return found


def _place(row: Mapping[str, Any]) -> tuple[int, int] | None:
    """Offset and length of a row's FLAC."""
    for member in (row, *(row["further"] or [])):
        if member["ext"] == "flac":
            return member["offset"], member["length"]
    return None


def _modelled(rows: list[dict[str, Any]], heard: list[Heard], score: Score) -> list[Sound]:
    found = [Sound(one) for one in heard]
    if score.audio_model:
        from mmdata.score.hearing import clap_scorer, device_of

        chosen = [at for at, one in enumerate(heard) if one.wave is not None and rows[at]["caption"]]
        waves = [wave for at in chosen if (wave := heard[at].wave) is not None]
        scores = clap_scorer(score.audio_model, device_of(score)).scores(waves, [rows[at]["caption"] for at in chosen])
        for at, value in zip(chosen, scores, strict=True):
            found[at] = replace(found[at], audio_score=float(value))
    if score.transcriber:
        from mmdata.score.hearing import device_of, transcriber

        chosen = [at for at, one in enumerate(heard) if one.wave is not None and not rows[at]["caption"]]
        waves = [wave for at in chosen if (wave := heard[at].wave) is not None]
        for at, text in zip(chosen, transcriber(score.transcriber, device_of(score)).transcripts(waves), strict=True):
            found[at] = replace(found[at], transcript=text or None)
    return found
