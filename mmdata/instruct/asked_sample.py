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
_HAN = re.compile(r"[\u3400-\u9fff]")
_KANA = re.compile(r"[\u3040-\u30ff]")
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
        """The caption in the language of the template, where there is one, else the sample's own."""
        return captions_of(self.row).get(self.lang) or (self.row["caption"] or "").strip()

    @property
    def caption_lang(self) -> str | None:
        """The language of `caption`; None if it is not known."""
        return self.lang if self.lang in captions_of(self.row) else self.row["caption_lang"]

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
        text, lang = self.ask(task, **values), self.caption_lang
        name = LANGUAGE_NAMES[self.lang].get(lang or "")
        return text if name is None or lang == self.lang else text + fill(ANSWER_IN[self.lang], language=name)


def captions_of(row: dict[str, Any]) -> dict[str, str]:
    """Language -> caption: the sample's own, if its language is known or is Chinese by its script, and further ones."""
    own = (row["caption"] or "").strip()
    captions = {further["lang"]: further["caption"].strip() for further in row["further_captions"] or ()}
    lang = row["caption_lang"] or ("zh" if _HAN.search(own) and not _KANA.search(own) else None)
    return captions | {lang: own} if own and lang else captions


def languages_of(row: dict[str, Any], languages: Sequence[str]) -> Sequence[str]:
    """The languages in which a sample's words can be asked for: those of its captions, else all.

    A question in one language is then never followed by an answer in another, unless no language of the templates has a
    caption; the question then names the language of the answer.
    """
    captions = captions_of(row)
    if not captions:  # a caption of unknown language, most likely a few English words
        return [lang for lang in languages if lang == "en"] or languages
    return [lang for lang in languages if lang in captions] or languages


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
