"""Turns timed captions into clips: removes repeated words, merges short neighbours, splits long captions.

Pure functions on the captions of one video.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from mmdata.config import Clips
from mmdata.sources.caption_encoding import BAD_ENCODING
from mmdata.sources.markup import plain_text
from mmdata.sources.problems import MAX_TIME_S, clean_caption

MAX_ROLL_GAP_S = 1.0  # captions further apart than this do not repeat each other
MIN_REPEATED_WORDS = 2  # a speaker may really say a single word twice
MAX_REMEMBERED_WORDS = 100  # more than a rolling caption ever shows at once


class Caption(NamedTuple):
    """Spoken words and their time span, in seconds from the start of the video."""

    start_s: float
    end_s: float
    text: str


@dataclass(frozen=True, slots=True)
class Clip:
    """A time span of a video and its captions, in order."""

    captions: tuple[Caption, ...]
    start_s: float
    end_s: float

    @property
    def text(self) -> str:
        return " ".join(caption.text for caption in self.captions)


def clips_of(captions: Iterable[Caption], settings: Clips) -> tuple[list[Clip], Counter[str]]:
    """The clips of a video, in order and without overlap, and counts of its bad captions.

    Args:
        captions: in any order.

    Returns:
        The clips, each remaining word in exactly one of them; and the counts `bad_encoding`, `bad_times`, `empty`,
        `repeated` and `zero_length`.
    """
    kept, counts = cleaned(captions)
    pieces = [piece for caption in kept for piece in split(caption, settings.max_clip_s)]
    return merged(pieces, settings), counts


def cleaned(captions: Iterable[Caption]) -> tuple[list[Caption], Counter[str]]:
    """Captions in order, without tags, repetition and overlap, and the counts that `clips_of` returns.

    The words of a caption without length go to its neighbour. A caption with invalid times or damaged letters (U+FFFD)
    is dropped.
    """
    counts: Counter[str] = Counter()
    valid: list[Caption] = []
    for caption in captions:
        text = clean_caption(plain_text(caption.text))
        if not 0 <= caption.start_s <= caption.end_s <= MAX_TIME_S:  # False for NaN too
            counts["bad_times"] += 1
        elif not text:
            counts["empty"] += 1
        elif "\ufffd" in text:
            counts[BAD_ENCODING] += 1
        else:
            # adding 0.0 turns -0.0 into 0.0, or the same clip has two uids
            valid.append(Caption(round(caption.start_s, 3) + 0.0, round(caption.end_s, 3) + 0.0, text))
    valid.sort(key=lambda caption: (caption.start_s, caption.end_s))
    return _no_overlap(_with_length(_unrolled(valid, counts), counts)), counts


def _unrolled(captions: Sequence[Caption], counts: Counter[str]) -> list[Caption]:
    """Captions without the words that they repeat from the captions before, as rolling captions do line by line."""
    kept: list[Caption] = []
    recent_words: list[str] = []  # the last words, without repetition
    end_s = -math.inf
    for caption in captions:
        words = caption.text.lower().split()
        if caption.start_s > end_s + MAX_ROLL_GAP_S:
            recent_words = []
        repeated = _repeated_words(recent_words, words)
        if not repeated:
            kept.append(caption)
        else:
            counts["repeated"] += 1
            if repeated < len(words):
                kept.append(caption._replace(text=" ".join(caption.text.split()[repeated:])))
            elif kept:
                kept[-1] = kept[-1]._replace(end_s=max(kept[-1].end_s, caption.end_s))
        recent_words = [*recent_words, *words[repeated:]][-MAX_REMEMBERED_WORDS:]
        end_s = caption.end_s
    return kept


def _repeated_words(before: Sequence[str], words: Sequence[str]) -> int:
    """How many of the first words of a caption repeat the last words before it."""
    if not before or words[0] not in before:
        return 0
    for count in range(min(len(before), len(words)), 0, -1):
        if before[-1] == words[count - 1] and before[-count:] == words[:count]:
            whole = count in (len(before), len(words))
            return count if count >= MIN_REPEATED_WORDS or whole else 0
    return 0


def _with_length(captions: Sequence[Caption], counts: Counter[str]) -> list[Caption]:
    """Captions without those of zero length; their words go to the next caption, or at the end to the last caption."""
    kept: list[Caption] = []
    waiting: list[str] = []
    for caption in captions:
        if caption.end_s <= caption.start_s:
            counts["zero_length"] += 1
            waiting.append(caption.text)
            continue
        kept.append(caption._replace(text=" ".join([*waiting, caption.text])) if waiting else caption)
        waiting = []
    if waiting and kept:
        kept[-1] = kept[-1]._replace(text=" ".join([kept[-1].text, *waiting]))
    return kept


def _no_overlap(captions: Sequence[Caption]) -> list[Caption]:
    """Captions that end before the next one begins; captions that begin at the same time become one."""
    kept: list[Caption] = []
    for start_s, group in groupby(captions, lambda caption: caption.start_s):
        together = list(group)
        if kept and kept[-1].end_s > start_s:
            kept[-1] = kept[-1]._replace(end_s=start_s)
        end_s = max(caption.end_s for caption in together)
        kept.append(Caption(start_s, end_s, " ".join(caption.text for caption in together)))
    return kept


def split(caption: Caption, max_s: float) -> list[Caption]:
    """A caption in pieces of at most `max_s`, cut between words; each piece gets time in proportion to its words.

    If the share of a single word is longer than `max_s`, its piece keeps the first `max_s`.
    """
    length = caption.end_s - caption.start_s
    if length <= max_s:
        return [caption]
    words = caption.text.split()
    seconds_per_word = length / len(words)
    words_per_piece = max(1, math.floor(max_s / seconds_per_word + 1e-9))
    count = math.ceil(len(words) / words_per_piece)
    pieces: list[Caption] = []
    for number in range(count):
        low, high = number * len(words) // count, (number + 1) * len(words) // count
        start, end = (round(caption.start_s + seconds_per_word * word, 3) for word in (low, high))
        pieces.append(Caption(start, min(end, round(start + max_s, 3)), " ".join(words[low:high])))
    return pieces


def merged(captions: Sequence[Caption], settings: Clips) -> list[Clip]:
    """Clips of neighbouring captions, each at least `min_clip_s` long if no long gap and no `max_clip_s` forbids it."""
    groups: list[list[Caption]] = []
    for caption in captions:
        if groups and _fit_together(groups[-1], [caption], settings) and _length(groups[-1]) < settings.min_clip_s:
            groups[-1].append(caption)
        else:
            groups.append([caption])
    clips: list[Clip] = []  # from the last to the first
    while groups:
        group = groups.pop()
        before = groups[-1] if groups else None
        if before and _length(group) < settings.min_clip_s and _fit_together(before, group, settings):
            before += group  # the group is still too short, so it joins the one before it
        else:
            clips.append(Clip(tuple(group), group[0].start_s, group[-1].end_s))
    return clips[::-1]


def _length(group: Sequence[Caption]) -> float:
    return group[-1].end_s - group[0].start_s


def _fit_together(group: Sequence[Caption], following: Sequence[Caption], settings: Clips) -> bool:
    return (
        following[0].start_s - group[-1].end_s <= settings.max_gap_s
        and following[-1].end_s - group[0].start_s <= settings.max_clip_s
    )
