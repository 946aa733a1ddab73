"""Speech for samples without sound: which are spoken is a draw of their uid, and what comes out is FLAC."""

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
"""Given text, its language (ISO 639-1 or None) and a number that picks the voice: float32 in [-1, 1], 16 kHz mono."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """A caption as sound: a FLAC file, and how long it is."""

    flac: bytes
    seconds: float


def chosen(rows: Sequence[Mapping[str, Any]], synthesis: Synthesis, seed: int) -> list[Mapping[str, Any]]:
    """The rows whose captions are to be spoken: a share of those of the kinds asked for, by a draw of their uid.

    Args:
        rows: of ROWS, none with sound of its own.
    """
    able = [row for row in rows if row["kind"] in synthesis.kinds and row["problem"] is None and row["caption"]]
    if not able or synthesis.speech <= 0:
        return []
    drawn = draws(pl.Series([row["uid"] for row in able]), seed, STAGE) < synthesis.speech
    return [row for row, is_drawn in zip(able, drawn, strict=True) if is_drawn]


def synthesised(
    rows: Sequence[Mapping[str, Any]], synthesis: Synthesis, seed: int
) -> tuple[dict[str, Spoken], dict[str, str]]:
    """Speak the captions of the rows that are drawn.

    Args:
        rows: of ROWS, none with sound of its own.

    Returns:
        uid -> sound, and uid -> why there is none.

    Raises:
        UserError: the synthesiser is not installed, or is no function of that name.
    """
    spoken: dict[str, Spoken] = {}
    failed: dict[str, str] = {}
    asked = chosen(rows, synthesis, seed)
    if not asked:
        return spoken, failed
    voices = hash64(pl.Series([row["uid"] for row in asked]), seed, "voice") % np.uint64(1 << 31)
    with speaker(synthesis.synthesiser) as speak:
        for row, voice in zip(asked, voices.tolist(), strict=True):
            try:
                wave = speak(row["caption"], row["lang"], voice)
            except DataError as error:
                failed[row["uid"]] = str(error)
            else:
                spoken[row["uid"]] = Spoken(flac(wave), len(wave) / SAMPLE_RATE)
    return spoken, failed


@contextmanager
def speaker(name: str) -> Iterator[Speak]:
    """The synthesiser of a name: `espeak`, or `module:function`.

    Raises:
        UserError: it cannot be imported.
    """
    if name == "espeak":
        from mmdata.media.espeak import Speaker

        with Speaker() as own:
            yield own.say
        return
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"synthesis.synthesiser: {name!r} cannot be imported ({error}). Remedy: `espeak`, or module:function of a "
            "function that takes text, language and voice and returns float32 samples at 16 kHz."
        ) from None
    yield cast(Speak, found)
