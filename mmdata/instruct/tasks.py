"""Which records a sample gives: one a task, chosen, worded and answered by hashes of its uid."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from mmdata.instruct.forms import Record
from mmdata.instruct.images import image_path
from mmdata.instruct.kept import has_image
from mmdata.instruct.neighbours import Neighbours
from mmdata.instruct.templates import ANSWER_IN, LANGUAGE_NAMES, TEMPLATES, YES_NO, fill
from mmdata.samples import hash64

DETAILED_TOKENS = 32
"""A caption of at least this many estimated tokens (24 English words, 32 Chinese characters) is a detailed one."""

_ABOUT_A_PICTURE = re.compile(r"\b(image|picture|photo|photograph|figure|shown|depicted)\b|图|照片|画面", re.IGNORECASE)

RULES: dict[str, str] = {
    "caption": "every picture with a caption; a detailed one goes to detailed_caption where that task is on",
    "detailed_caption": f"captions of at least {DETAILED_TOKENS} estimated tokens (24 words or 32 CJK characters)",
    "match": (
        "pictures that have a hard negative; a hash of the uid decides whether their own caption is asked about (yes) "
        "or the nearest other picture's that shares less than half of its words (no)"
    ),
    "reference_image": "pictures with a similar one in the same split that is no duplicate and has another caption",
    "text_qa": "rows whose own columns hold a question and an answer, unless the question speaks of a picture",
    "text_to_image": "every picture with a caption, as the target",
}


@dataclass(slots=True)
class Told:
    """What was counted while records were made: records by (task, language), and samples passed over by reason."""

    records: Counter[tuple[str, str]]
    skipped: Counter[str]


def make_records(
    frame: pl.DataFrame,
    neighbours: Neighbours,
    tasks: Sequence[str],
    languages: Sequence[str],
    seed: int,
    told: Told,
    block: int = 20_000,
) -> Iterator[Record]:
    """Yield the records of one split's samples, in uid order, a sample's in the order of `tasks`.

    Args:
        frame: as `kept.Kept.frame`, of one split, in uid order.
        neighbours: rows into the same frame.
        told: counts are added to it.
    """
    pictured = has_image(frame)
    for start in range(0, len(frame), block):
        piece = frame[start : start + block]
        draws = {
            task: (hash64(piece["uid"], seed, f"instruct:{task}"), hash64(piece["uid"], seed, f"language:{task}"))
            for task in tasks
        }
        for number, row in enumerate(piece.iter_rows(named=True)):
            at = start + number
            for task in tasks:
                bits, language_bits = (int(one[number]) for one in draws[task])
                lang = languages[language_bits % len(languages)]
                if task == "text_qa":
                    lang = _language_of(row["question"] or "", languages, lang)
                sample = _Sample(row, at, bool(pictured[at]), lang, bits)
                made = _make(task, sample, frame, neighbours, tasks)
                if isinstance(made, Record):
                    told.records[task, lang] += 1
                    yield made
                else:
                    told.skipped[f"{task}: {made}"] += 1


@dataclass(frozen=True, slots=True)
class _Sample:
    row: dict
    at: int
    pictured: bool
    lang: str
    bits: int

    @property
    def caption(self) -> str:
        return (self.row["caption"] or "").strip()

    @property
    def image(self) -> str:
        return path_of(self.row)

    def record(self, task: str, instruction: str, output: str | None, **images: str) -> Record:
        return Record(f"{self.row['uid']}-{task}", task, self.lang, instruction, output, **images)

    def ask(self, task: str, **values: str) -> str:
        """The instruction; the template is drawn by the hash."""
        choices = TEMPLATES[task][self.lang]
        return fill(choices[self.bits % len(choices)], **values)

    def ask_for_caption(self, task: str, **values: str) -> str:
        """The instruction, naming the caption's language where it is another than the template's."""
        text, spoken = self.ask(task, **values), self.row["caption_lang"]
        name = LANGUAGE_NAMES[self.lang].get(spoken or "")
        return text if name is None or spoken == self.lang else text + fill(ANSWER_IN[self.lang], language=name)


def _make(
    task: str, sample: _Sample, frame: pl.DataFrame, neighbours: Neighbours, tasks: Sequence[str]
) -> Record | str:
    """The record of a sample for a task, or the reason why there is none."""
    if task == "text_qa":
        return _text_qa(sample)
    if not sample.pictured or not sample.caption:
        return "no caption" if sample.pictured else "no picture"
    if task == "match":
        return _match(sample, frame, int(neighbours.negative[sample.at]))
    if task == "reference_image":
        return _reference_image(sample, frame, int(neighbours.reference[sample.at]))
    if task == "text_to_image":
        return sample.record(task, sample.ask(task, caption=sample.caption), None, output_image=sample.image)
    return _caption(task, sample, "detailed_caption" in tasks)


def _caption(task: str, sample: _Sample, detailed_apart: bool) -> Record | str:
    detailed = sample.row["tokens"] >= DETAILED_TOKENS
    if task == "detailed_caption" and not detailed:
        return "caption too short"
    if task == "caption" and detailed and detailed_apart:
        return "detailed instead"
    return sample.record(task, sample.ask_for_caption(task), sample.caption, input_image=sample.image)


def _match(sample: _Sample, frame: pl.DataFrame, neighbour: int) -> Record | str:
    if neighbour < 0:
        return "no hard negative"  # nor a positive, or the answer could be told from who is asked
    yes, no = YES_NO[sample.lang]
    if sample.bits >> 63:
        asked, answer = sample.caption, yes
    else:
        asked, answer = (frame["caption"][neighbour] or "").strip(), no
    return sample.record("match", sample.ask("match", caption=asked), answer, input_image=sample.image)


def _reference_image(sample: _Sample, frame: pl.DataFrame, neighbour: int) -> Record | str:
    if neighbour < 0:
        return "no similar picture"
    other = frame.row(neighbour, named=True)
    instruction = sample.ask_for_caption("reference_image", reference_caption=(other["caption"] or "").strip())
    return sample.record(
        "reference_image",
        instruction,
        sample.caption,
        input_image=sample.image,
        reference_image=path_of(other),
    )


def _text_qa(sample: _Sample) -> Record | str:
    question, answer = sample.row["question"], sample.row["answer"]
    if not question or not answer:
        return "no question and answer"
    if _ABOUT_A_PICTURE.search(question):
        return "question about a picture"
    return sample.record("text_qa", sample.ask("text_qa", question=question), answer)


def _language_of(text: str, languages: Sequence[str], otherwise: str) -> str:
    """The template language that a question reads naturally in."""
    own = "zh" if re.search(r"[\u3400-\u9fff]", text) else "en"
    return own if own in languages else otherwise


def path_of(row: dict) -> str:
    """The path of a kept sample's picture."""
    return image_path(row["key"], row["ext"], row["shard"])


def no_neighbours(count: int) -> Neighbours:
    """Where no task asks for any."""
    return Neighbours(np.full(count, -1, np.int64), np.full(count, -1, np.int64))
