"""Timed captions to clips: what speech recognition says twice goes, neighbours are merged, the too long is split.

Pure functions on lists of one video's captions.
"""

from __future__ import annotations

import html
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mmdata.config import Clips
from mmdata.sources.problems import clean_caption

ROLL_GAP_S = 1.0  # captions further apart do not roll on from each other
LEAST_OVERLAP = 2  # words; speakers do say a single word twice
SAID_WORDS = 100  # more than a caption that rolls may show

_TAG = re.compile(r"</?[a-zA-Z0-9.:_ -]{0,60}>|\{\\[^}]{0,60}\}")  # of VTT (<c>, <00:00:01.000>) and of SRT ({\an8})


class Caption(NamedTuple):
    """Words and when they are said, in seconds from the start of the video."""

    start_s: float
    end_s: float
    text: str


@dataclass(frozen=True, slots=True)
class Clip:
    """A span of a video and the captions in it, which lie within the span and are in order."""

    captions: tuple[Caption, ...]
    start_s: float
    end_s: float

    @property
    def text(self) -> str:
        return " ".join(one.text for one in self.captions)


def clips_of(captions: Iterable[Caption], settings: Clips) -> tuple[list[Clip], Counter[str]]:
    """The clips of a video, in order and never overlapping, and what was found wrong with its captions.

    Args:
        captions: as they were read, in any order.

    Returns:
        The clips; each word that is left stands in exactly one. Counted: `bad_times`, `empty`, `repeated`,
        `zero_length`.
    """
    found, told = cleaned(captions)
    pieces = [piece for one in found for piece in split(one, settings.max_clip_s)]
    return merged(pieces, settings), told


def cleaned(captions: Iterable[Caption]) -> tuple[list[Caption], Counter[str]]:
    """Captions in order, without tags, repetition and overlap. Counts as `clips_of` does.

    A caption of no length gives its words to its neighbour; one whose times are no times is left out.
    """
    told: Counter[str] = Counter()
    sound: list[Caption] = []
    for one in captions:
        untagged = _TAG.sub(" ", one.text) if "<" in one.text or "{" in one.text else one.text
        text = clean_caption(html.unescape(untagged))
        if not (math.isfinite(one.start_s) and math.isfinite(one.end_s)) or not 0 <= one.start_s <= one.end_s:
            told["bad_times"] += 1
        elif not text:
            told["empty"] += 1
        else:
            sound.append(Caption(round(one.start_s, 3), round(one.end_s, 3), text))
    sound.sort(key=lambda one: (one.start_s, one.end_s))
    return _no_overlap(_with_length(_unrolled(sound, told), told)), told


def _unrolled(captions: Sequence[Caption], told: Counter[str]) -> list[Caption]:
    """Without the words that a caption takes over from those before it, as rolling captions do line by line."""
    kept: list[Caption] = []
    said: list[str] = []  # the last words, each once
    end_s = -math.inf
    for one in captions:
        words = one.text.lower().split()
        if one.start_s > end_s + ROLL_GAP_S:
            said = []
        again = _overlap(said, words)
        if not again:
            kept.append(one)
        else:
            told["repeated"] += 1
            if again < len(words):
                kept.append(one._replace(text=" ".join(one.text.split()[again:])))
            elif kept:
                kept[-1] = kept[-1]._replace(end_s=max(kept[-1].end_s, one.end_s))
        said, end_s = [*said, *words[again:]][-SAID_WORDS:], one.end_s
    return kept


def _overlap(before: Sequence[str], words: Sequence[str]) -> int:
    """How many of the first words are the last ones of those before."""
    if not before or words[0] not in before:
        return 0
    for count in range(min(len(before), len(words)), 0, -1):
        if before[-count:] == words[:count]:
            whole = count in (len(before), len(words))
            return count if count >= LEAST_OVERLAP or whole else 0
    return 0


def _with_length(captions: Sequence[Caption], told: Counter[str]) -> list[Caption]:
    """Without captions of no length; their words go to the next one, or the last one before."""
    kept: list[Caption] = []
    waiting: list[str] = []
    for one in captions:
        if one.end_s <= one.start_s:
            told["zero_length"] += 1
            waiting.append(one.text)
            continue
        kept.append(one._replace(text=" ".join([*waiting, one.text])) if waiting else one)
        waiting = []
    if waiting and kept:
        kept[-1] = kept[-1]._replace(text=" ".join([kept[-1].text, *waiting]))
    return kept


def _no_overlap(captions: Sequence[Caption]) -> list[Caption]:
    """Each caption ends where the next one begins, at the latest; those that begin at once become one."""
    kept: list[Caption] = []
    for one in captions:
        if kept and one.start_s <= kept[-1].start_s:
            last = kept[-1]
            kept[-1] = Caption(last.start_s, max(last.end_s, one.end_s), f"{last.text} {one.text}")
            continue
        if kept and kept[-1].end_s > one.start_s:
            kept[-1] = kept[-1]._replace(end_s=one.start_s)
        kept.append(one)
    return kept


def split(caption: Caption, max_s: float) -> list[Caption]:
    """A caption in pieces of at most `max_s`, cut between words, time in proportion to their number.

    A word whose share alone is longer than that keeps the first `max_s` of it.
    """
    length = caption.end_s - caption.start_s
    if length <= max_s:
        return [caption]
    words = caption.text.split()
    each_s = length / len(words)
    most = max(1, math.floor(max_s / each_s + 1e-9))  # words of a piece
    count = math.ceil(len(words) / most)
    pieces: list[Caption] = []
    for number in range(count):
        low, high = number * len(words) // count, (number + 1) * len(words) // count
        start, end = (round(caption.start_s + each_s * at, 3) for at in (low, high))
        pieces.append(Caption(start, min(end, round(start + max_s, 3)), " ".join(words[low:high])))
    return pieces


def merged(captions: Sequence[Caption], settings: Clips) -> list[Clip]:
    """Neighbours together until a clip is `min_clip_s` long, never over `max_clip_s`, never over a long gap."""
    groups: list[list[Caption]] = []
    for one in captions:
        if groups and _may_join(groups[-1], one, settings) and _length(groups[-1]) < settings.min_clip_s:
            groups[-1].append(one)
        else:
            groups.append([one])
    for at in range(len(groups) - 1, 0, -1):  # what is left short goes to the clip before it, where it fits
        short = _length(groups[at]) < settings.min_clip_s
        gap = groups[at][0].start_s - groups[at - 1][-1].end_s
        fits = groups[at][-1].end_s - groups[at - 1][0].start_s <= settings.max_clip_s
        if short and fits and gap <= settings.max_gap_s:
            groups[at - 1] += groups.pop(at)
    return [Clip(tuple(group), group[0].start_s, group[-1].end_s) for group in groups]


def _length(group: Sequence[Caption]) -> float:
    return group[-1].end_s - group[0].start_s


def _may_join(group: Sequence[Caption], one: Caption, settings: Clips) -> bool:
    return one.start_s - group[-1].end_s <= settings.max_gap_s and one.end_s - group[0].start_s <= settings.max_clip_s
