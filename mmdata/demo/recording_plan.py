"""Plan the demo's how-to videos, narrations and texts, and the faults in them: pure functions of their number."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from mmdata.demo.caption_templates import COLOURS
from mmdata.demo.drawings import Emoji, one_per_base

STEPS_PER_VIDEO = (4, 6)  # fewest and most
PAUSE_S = 0.6  # after each step
WORDS_PER_S = 2.4  # of a slow narrator; silent videos are timed by it

TASKS: tuple[tuple[str, str, str, str, tuple[str, ...]], ...] = (
    ("Food and Entertaining", "Recipes", "cook a dinner", "food",
     ("wash the {name} with cold water", "cut the {name} into small pieces", "put the {name} in the pan and stir",
      "add the {name} and a little salt", "serve the {name} while it is hot", "let the {name} rest for a minute")),
    ("Home and Garden", "Gardening", "plant a garden", "plant",
     ("dig a hole for the {name}", "water the {name} every morning", "place the {name} where the sun can reach it",
      "tie the {name} to a stick", "cut the dry parts of the {name}")),
    ("Hobbies and Crafts", "Drawing", "draw an animal", "animal",
     ("draw the outline of the {name}", "paint the {name} with a thin brush", "give the {name} two round eyes",
      "add some shadow under the {name}", "show the {name} to your friends")),
    ("Cars and Other Vehicles", "Repair", "look after a vehicle", "travel",
     ("clean the {name} with a soft cloth", "check the {name} before you leave", "park the {name} in the shade",
      "paint the {name} again after a year")),
    ("Sports and Fitness", "Games", "pack a bag", "object",
     ("take the {name} out of its box", "put the {name} into the bag", "keep the {name} dry",
      "fold the {name} and press the air out")),
)  # fmt: skip
"""category_1, category_2, title, kind of the emoji that the video shows, and sentences for its steps."""

_KINDS_WITHOUT_SENTENCE = frozenset({"symbol", "flag"})  # "this is a drawing of <name>" would make no sense

VIDEO_FAULTS = ("silent", "cut_short", "wrong_captions", "black", "missing", "no_captions", "past_end", "silent")
"""Planted in the last videos, one each; the others are clean."""

NARRATION_FAULTS = ("silence", "missing", "cut_short", "not_sound", "wrong_transcript", "no_transcript")
"""Planted in the first narrations, one each; the others are clean."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a how-to: the drawing that is shown, its background (a CSS colour), and the spoken sentence."""

    subject: Emoji
    background: str
    sentence: str


@dataclass(frozen=True, slots=True)
class HowTo:
    """A how-to video."""

    video_id: str  # 11 characters, as on YouTube
    category_1: str
    category_2: str
    title: str
    task_id: int  # the same for all videos of a task, as in HowTo100M
    rank: int  # position among the videos of the task, from 1
    steps: tuple[Step, ...]
    planted: str = "clean"  # `clean`, or one of `VIDEO_FAULTS`
    codec: str = "h264"  # `h264` or `vp9`
    captions_of: str | None = None  # id of the video whose captions are published for this one; None: its own


@dataclass(frozen=True, slots=True)
class Narration:
    """A recording: its file on the site, the spoken text, and the transcript in the metadata."""

    file: str
    speech: str
    transcript: str | None
    planted: str = "clean"


@dataclass(frozen=True, slots=True)
class Note:
    """A text with a question and its answer."""

    text: str
    question: str
    answer: str


def plan_videos(count: int, emoji: Sequence[Emoji]) -> list[HowTo]:
    """Plan `count` how-to videos, of all tasks in turn, with `VIDEO_FAULTS` in the last ones."""
    random = Random(2)
    planned: list[HowTo] = []
    for number in range(count):
        task = number % len(TASKS)
        category_1, category_2, title, kind, sentences = TASKS[task]
        subjects = random.sample(_with_short_names(emoji, kind), random.randint(*STEPS_PER_VIDEO))
        colours = random.sample(sorted(COLOURS.values()), len(subjects))
        steps = tuple(
            Step(subject, colour, random.choice(sentences).format(name=subject.name))
            for subject, colour in zip(subjects, colours, strict=True)
        )
        codec = "vp9" if number % 5 == 3 else "h264"
        planned.append(
            HowTo(_video_id(number), category_1, category_2, title, 1000 + task, number // len(TASKS) + 1, steps,
                  codec=codec)
        )  # fmt: skip
    for number, planted in enumerate(VIDEO_FAULTS[: max(0, count - 4)]):
        planned[-number - 1] = replace(planned[-number - 1], planted=planted)
    clean = [video for video in planned if video.planted == "clean"]
    return [
        replace(video, captions_of=random.choice([other for other in clean if other.task_id != video.task_id]).video_id)
        if video.planted == "wrong_captions"
        else video
        for video in planned
    ]


def plan_narrations(count: int, emoji: Sequence[Emoji]) -> list[Narration]:
    """Plan `count` recordings in which somebody says what a drawing shows, and `NARRATION_FAULTS` in the first."""
    random = Random(3)
    sentences = [_sentence(subject, random) for subject in _shuffled_subjects(emoji, random, count)]
    narrations = [Narration(f"sounds/{number:04d}.flac", text, text) for number, text in enumerate(sentences)]
    for number, planted in enumerate(NARRATION_FAULTS[: max(0, count - 4)]):
        clean = narrations[number]
        transcript = {"wrong_transcript": sentences[-1], "no_transcript": None}.get(planted, clean.transcript)
        narrations[number] = replace(clean, planted=planted, transcript=transcript)
    return narrations


def plan_notes(count: int, emoji: Sequence[Emoji]) -> list[Note]:
    """Plan `count` short texts about the names of drawings."""
    random = Random(4)
    languages = {"de": "German", "es": "Spanish", "fr": "French", "it": "Italian"}
    notes = []
    for subject in _shuffled_subjects(emoji, random, count):
        code = random.choice(sorted(languages))
        word = subject.names.get(code, subject.name)
        text = f"The {subject.name} belongs to the {subject.kind} drawings. In {languages[code]} it is called {word}."
        notes.append(Note(text, f"What is the {subject.name} called in {languages[code]}?", word))
    return notes


def timed_captions(video: HowTo, lengths_s: Sequence[float]) -> dict[str, list[float] | list[str]]:
    """The video's captions as speech recognition gives them: lower case, cut anywhere, and with repeated words.

    In every second video each caption begins with the last words of the one before, as YouTube's captions do.
    `lengths_s` are the seconds of speech of each step. Returns HowTo100M's lists `start`, `end`, `text`.
    """
    start, end, text = [], [], []
    step_start_s = 0.0
    repeats_words = int(video.video_id.encode().hex(), 16) % 2 == 1
    repeated: list[str] = []
    for step, length_s in zip(video.steps, lengths_s, strict=True):
        words = step.sentence.lower().split()
        half = len(words) // 2
        half_s = length_s * half / len(words)
        for part, part_start_s, part_end_s in ((words[:half], 0.0, half_s), (words[half:], half_s, length_s)):
            start.append(round(step_start_s + part_start_s, 2))
            end.append(round(step_start_s + part_end_s, 2))
            text.append(" ".join([*repeated, *part]))
            repeated = part[-3:] if repeats_words else []
        step_start_s += length_s + PAUSE_S
    if video.planted == "past_end":
        start.append(round(step_start_s + 20, 2))
        end.append(round(step_start_s + 24, 2))
        text.append("this is said after the video has ended")
    return {"start": start, "end": end, "text": text}


def _with_short_names(emoji: Sequence[Emoji], kind: str) -> list[Emoji]:
    """Emoji of a kind, one per base, whose names fit into the sentences of a task."""
    plain = one_per_base(drawing for drawing in emoji if drawing.kind == kind)
    return [drawing for drawing in plain if len(drawing.name.split()) <= 2 and not drawing.name.startswith("no ")]


def _shuffled_subjects(emoji: Sequence[Emoji], random: Random, count: int) -> list[Emoji]:
    subjects = one_per_base(drawing for drawing in emoji if drawing.kind not in _KINDS_WITHOUT_SENTENCE)
    random.shuffle(subjects)
    return [subjects[number % len(subjects)] for number in range(count)]


def _sentence(subject: Emoji, random: Random) -> str:
    forms = ("this is a drawing of {name}", "here you see {name}", "somebody drew {name} for you", "look, {name}")
    return random.choice(forms).format(name=subject.name)


def _video_id(number: int) -> str:
    digest = hashlib.blake2b(f"mmdata demo video {number}".encode(), digest_size=9).digest()
    return base64.urlsafe_b64encode(digest).decode()[:11]
