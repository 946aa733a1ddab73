"""Which how-to videos, narrations and texts the demo has, and what is planted in them: pure functions of a number."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from mmdata.demo.drawings import Emoji
from mmdata.demo.page_captions import COLOURS

STEPS = (4, 6)
PAUSE_S = 0.6
WORDS_PER_S = 2.4  # of a narrator who takes time; what captions are timed by where nothing is spoken

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
"""category_1, category_2, what the video shows, kind of the things it shows, and sentences for its steps."""

_UNSPOKEN = frozenset({"symbol", "flag"})  # whose names make no sentence

ODD_VIDEOS = ("silent", "cut_short", "wrong_captions", "black", "missing", "no_captions", "past_end", "silent")
"""What is planted in the first videos, one each; the others are clean."""

ODD_SOUNDS = ("silence", "missing", "cut_short", "not_sound", "wrong_transcript", "no_transcript")
"""What is planted in the first narrations, one each."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a how-to: what is seen, on which background (a CSS colour), and what is said."""

    subject: Emoji
    background: str
    sentence: str


@dataclass(frozen=True, slots=True)
class HowTo:
    """A how-to video.

    Args:
        video_id: 11 characters, as YouTube's are.
        task_id: the same for all videos of a task, as in HowTo100M.
        rank: its place among the task's videos.
        planted: clean, or one of `ODD_VIDEOS`.
        codec: h264 or vp9.
        captions_of: the video whose captions it has, if not its own.
    """

    video_id: str
    category_1: str
    category_2: str
    title: str
    task_id: int
    rank: int
    steps: tuple[Step, ...]
    planted: str = "clean"
    codec: str = "h264"
    captions_of: str | None = None


@dataclass(frozen=True, slots=True)
class Narration:
    """A recording: the file on the site, what is said in it, and the transcript that the metadata gives."""

    file: str
    said: str
    transcript: str | None
    planted: str = "clean"


@dataclass(frozen=True, slots=True)
class Note:
    """A text with a question and its answer."""

    text: str
    question: str
    answer: str


def plan_videos(count: int, emoji: Sequence[Emoji]) -> list[HowTo]:
    """So many how-to videos, of all tasks in turn; the first ones have what `ODD_VIDEOS` says."""
    random = Random(2)
    planned: list[HowTo] = []
    for number in range(count):
        task = number % len(TASKS)
        category_1, category_2, title, kind, sentences = TASKS[task]
        shown = _plain_named(emoji, kind)
        subjects = random.sample(shown, random.randint(*STEPS))
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
    for number, planted in enumerate(ODD_VIDEOS[: max(0, count - 4)]):
        planned[-number - 1] = replace(planned[-number - 1], planted=planted)
    clean = [video for video in planned if video.planted == "clean"]
    return [
        replace(video, captions_of=random.choice([one for one in clean if one.task_id != video.task_id]).video_id)
        if video.planted == "wrong_captions"
        else video
        for video in planned
    ]


def plan_narrations(count: int, emoji: Sequence[Emoji]) -> list[Narration]:
    """So many recordings of somebody who says what a drawing shows."""
    random = Random(3)
    sentences = [_sentence(subject, random) for subject in _shuffled(emoji, random, count)]
    found = [Narration(f"sounds/{number:04d}.flac", said, said) for number, said in enumerate(sentences)]
    for number, planted in enumerate(ODD_SOUNDS[: max(0, count - 4)]):
        own = found[number]
        transcript = {"wrong_transcript": sentences[-1], "no_transcript": None}.get(planted, own.transcript)
        found[number] = replace(own, planted=planted, transcript=transcript)
    return found


def plan_notes(count: int, emoji: Sequence[Emoji]) -> list[Note]:
    """So many short texts about the drawings' names."""
    random = Random(4)
    languages = {"de": "German", "es": "Spanish", "fr": "French", "it": "Italian"}
    notes = []
    for subject in _shuffled(emoji, random, count):
        code = random.choice(sorted(languages))
        word = subject.names.get(code, subject.name)
        text = f"The {subject.name} belongs to the {subject.kind} drawings. In {languages[code]} it is called {word}."
        notes.append(Note(text, f"What is the {subject.name} called in {languages[code]}?", word))
    return notes


def timed_captions(video: HowTo, lengths_s: Sequence[float]) -> dict[str, list[float] | list[str]]:
    """The video's captions as speech recognition gives them: lower case, cut anywhere, each repeating the last words.

    Args:
        lengths_s: seconds of speech of each step.

    Returns:
        HowTo100M's lists `start`, `end`, `text`.
    """
    start, end, text = [], [], []
    at = 0.0
    tail: list[str] = []
    for step, length in zip(video.steps, lengths_s, strict=True):
        words = step.sentence.lower().split()
        half = len(words) // 2
        spans = ((words[:half], 0.0, length * half / len(words)), (words[half:], length * half / len(words), length))
        for part, low, high in spans:
            start.append(round(at + low, 2))
            end.append(round(at + high, 2))
            text.append(" ".join([*tail, *part]))
            tail = part[-3:] if int(video.video_id.encode().hex(), 16) % 2 else []
        at += length + PAUSE_S
    if video.planted == "past_end":
        start.append(round(at + 20, 2))
        end.append(round(at + 24, 2))
        text.append("this is said after the video has ended")
    return {"start": start, "end": end, "text": text}


def _plain_named(emoji: Sequence[Emoji], kind: str) -> list[Emoji]:
    bases = {one.base: one for one in emoji if one.kind == kind and not one.has_skin_tone}
    return [one for one in bases.values() if len(one.name.split()) <= 2 and not one.name.startswith("no ")]


def _shuffled(emoji: Sequence[Emoji], random: Random, count: int) -> list[Emoji]:
    bases = list({one.base: one for one in emoji if not one.has_skin_tone and one.kind not in _UNSPOKEN}.values())
    random.shuffle(bases)
    return [bases[number % len(bases)] for number in range(count)]


def _sentence(subject: Emoji, random: Random) -> str:
    forms = ("this is a drawing of {name}", "here you see {name}", "somebody drew {name} for you", "look, {name}")
    return random.choice(forms).format(name=subject.name)


def _video_id(number: int) -> str:
    digest = hashlib.blake2b(f"mmdata demo video {number}".encode(), digest_size=9).digest()
    return base64.urlsafe_b64encode(digest).decode()[:11]
