"""Makes speech for samples without sound. A draw by uid decides which captions are spoken; the result is FLAC."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import polars as pl

from mmdata.config import Synthesis
from mmdata.errors import DataError, UserError
from mmdata.media.flac import SAMPLE_RATE, flac
from mmdata.samples import draws, hash64

STAGE = "synthesis"

Speak = Callable[[str, str | None, int], np.ndarray]
"""Takes a text, its language (ISO 639-1 or None) and a voice number; returns float32 N in [-1, 1], 16 kHz mono."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """A spoken caption: a FLAC file and its length."""

    flac: bytes
    seconds: float


def drawn_rows(rows: Sequence[Mapping[str, Any]], synthesis: Synthesis, seed: int) -> list[Mapping[str, Any]]:
    """The rows whose captions are spoken: the share `synthesis.speech` of those of the chosen kinds, drawn by uid.

    Args:
        rows: of ROWS, without sound of their own.
    """
    candidates = [row for row in rows if row["kind"] in synthesis.kinds and row["problem"] is None and row["caption"]]
    if not candidates or synthesis.speech <= 0:
        return []
    drawn = draws(pl.Series([row["uid"] for row in candidates]), seed, STAGE) < synthesis.speech
    return [row for row, is_drawn in zip(candidates, drawn, strict=True) if is_drawn]


def speak_captions(
    rows: Sequence[Mapping[str, Any]], synthesis: Synthesis, seed: int
) -> tuple[dict[str, Spoken], dict[str, str]]:
    """Speak the captions of the drawn rows.

    Args:
        rows: of ROWS, without sound of their own.

    Returns:
        uid -> sound, and uid -> why a drawn caption could not be spoken.

    Raises:
        UserError: the synthesiser is not installed, or there is no function of that name.
    """
    spoken: dict[str, Spoken] = {}
    failed: dict[str, str] = {}
    to_speak = drawn_rows(rows, synthesis, seed)
    if not to_speak:
        return spoken, failed
    voices = hash64(pl.Series([row["uid"] for row in to_speak]), seed, "voice") % np.uint64(1 << 31)
    with speaker(synthesis.synthesiser) as speak:
        for row, voice in zip(to_speak, voices.tolist(), strict=True):
            try:
                wave = speak(row["caption"], row["lang"], voice)
            except DataError as error:
                failed[row["uid"]] = str(error)
            else:
                spoken[row["uid"]] = Spoken(flac(wave), len(wave) / SAMPLE_RATE)
    return spoken, failed


@contextmanager
def speaker(name: str) -> Iterator[Speak]:
    """The synthesiser of that name: `espeak`, or `module:function`.

    Raises:
        UserError: it cannot be imported.
    """
    if name == "espeak":
        from mmdata.media.espeak import Speaker

        with Speaker() as espeak:
            yield espeak.say
        return
    module, _, function_name = name.partition(":")
    try:
        function = getattr(importlib.import_module(module), function_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"synthesis.synthesiser: {name!r} cannot be imported ({error}). Remedy: set it to `espeak`, or to the "
            "module:function of a function that takes text, language and voice and returns float32 samples at 16 kHz."
        ) from None
    yield cast(Speak, function)
