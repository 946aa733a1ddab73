"""A sample as the tasks see it: its row, the paths of its media, and the instruction about it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from mmdata.instruct.forms import Record
from mmdata.instruct.media_paths import member_path
from mmdata.instruct.neighbours import Neighbours
from mmdata.instruct.templates import ANSWER_IN, LANGUAGE_NAMES, TEMPLATES, fill
from mmdata.instruct.videos import Videos

FRAMES_SHOWN = 8  # of one clip, evenly spaced
_FRAME = re.compile(r"\d{3}\.(jpg|png|webp)")


@dataclass(frozen=True, slots=True)
class Split:
    """The samples of one split, their neighbours and their videos.

    Args:
        frame: as `kept.Kept.frame`, in uid order.
        neighbours: rows into the same frame.
        tasks: the tasks that the corpus asks for.
    """

    frame: pl.DataFrame
    neighbours: Neighbours
    videos: Videos
    tasks: Sequence[str]

    def row(self, at: int) -> dict[str, Any]:
        return self.frame.row(at, named=True)


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample of a split, for one task.

    Args:
        at: row number in the split.
        lang: language of the template.
        bits: 64-bit hash of uid and task; it decides what is drawn.
    """

    row: dict[str, Any]
    at: int
    lang: str
    bits: int

    @property
    def caption(self) -> str:
        return (self.row["caption"] or "").strip()

    @property
    def is_picture(self) -> bool:
        return self.row["kind"] == "image" and bool(self.row["exts"])

    @property
    def is_clip(self) -> bool:
        return self.row["kind"] == "video" and bool(frames_of(self.row))

    @property
    def image(self) -> str:
        return path_of(self.row)

    def record(self, task: str, instruction: str, output: str | None, **media: Any) -> Record:
        return Record(f"{self.row['uid']}-{task}", task, self.lang, instruction, output, **media)

    def ask(self, task: str, **values: str) -> str:
        """The instruction, from a template that the hash chooses."""
        choices = TEMPLATES[task][self.lang]
        return fill(choices[self.bits % len(choices)], **values)

    def ask_for_caption(self, task: str, **values: str) -> str:
        """The instruction; if the caption is in another language than the template, it also asks for that language."""
        text, spoken = self.ask(task, **values), self.row["caption_lang"]
        name = LANGUAGE_NAMES[self.lang].get(spoken or "")
        return text if name is None or spoken == self.lang else text + fill(ANSWER_IN[self.lang], language=name)


def path_of(row: dict[str, Any]) -> str:
    """Path of the picture of a kept sample."""
    return member_path(row["key"], row["exts"][0], row["shard"])


def frames_of(row: dict[str, Any], most: int = FRAMES_SHOWN) -> tuple[str, ...]:
    """Paths of at most `most` frames of a clip, evenly spaced. A single frame is the middle one."""
    frames = [ext for ext in row["exts"] or () if _FRAME.fullmatch(ext)]
    if len(frames) > most:
        places = np.linspace(0, len(frames) - 1, most).round() if most > 1 else np.array([len(frames) // 2])
        frames = [frames[int(at)] for at in places]
    return tuple(member_path(row["key"], ext, row["shard"]) for ext in frames)


def sound_of(row: dict[str, Any]) -> str | None:
    """Path of the sound of a sample; None if it has no sound."""
    return member_path(row["key"], "flac", row["shard"]) if "flac" in (row["exts"] or ()) else None
