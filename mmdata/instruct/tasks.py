"""Makes the records of each sample, at most one a task. Hashes of the uid choose template, language and answer."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import polars as pl

from mmdata.documents import DOCUMENT
from mmdata.instruct import clips
from mmdata.instruct.asked_sample import Sample, Split, captions_of, frames_of, languages_of, path_of
from mmdata.instruct.forms import Record
from mmdata.instruct.neighbours import Neighbours
from mmdata.instruct.templates import YES_NO
from mmdata.instruct.videos import videos_of
from mmdata.samples import hash64

DETAILED_TOKENS = 32
"""A caption of at least this many estimated tokens (24 English words, 32 Chinese characters) is a detailed one."""

_ABOUT_A_PICTURE = re.compile(r"\b(image|picture|photo|photograph|figure|shown|depicted)\b|图|照片|画面", re.IGNORECASE)

RULES: dict[str, str] = {
    "caption": (
        "every picture and clip with a caption; a detailed one goes to detailed_caption where that task is on, a "
        "clip's to step_caption where that is"
    ),
    "detailed_caption": (
        f"captions of at least {DETAILED_TOKENS} estimated tokens (24 words or 32 CJK characters); a clip's goes to "
        "step_caption where that task is on"
    ),
    "match": (
        "pictures that have a hard negative: the nearest other picture whose caption is in the same language, means "
        "something else (by its words and its text embedding) and fits this picture clearly less; a hash of the uid "
        "decides whether the own caption is asked about (yes) or that one (no)"
    ),
    "reference_image": (
        "pictures with a similar one in the same split (more similar than 995 of 1,000 random pairs) that is no "
        "duplicate and has another caption in the same language"
    ),
    "text_qa": "rows whose own columns hold a question and an answer, unless the question speaks of a picture",
    "text_to_image": "every picture with a caption, as the target",
    "step_caption": "every clip with a caption: its frames, and what is done in it",
    "step_order": (
        f"videos of which at least {clips.STEPS[0]} clips are kept: the middle frames of {clips.STEPS[0]} to "
        f"{clips.STEPS[1]} of them, shuffled by hash; one record a video, under the uid of its first clip"
    ),
    "what_comes_next": (
        f"clips with a caption that follow another one of their video by at most {clips.MAX_GAP_S:g} s: frames of up "
        f"to {clips.CLIPS_BEFORE} clips before, and the caption"
    ),
    "transcribe": (
        "sound whose words were said: kind audio, captions with times of their own (speech recognition), and speech "
        f"that was synthesised; not where under {clips.MIN_SPEECH:.0%} of the sound is speech, where that was measured"
    ),
    "audio_visual_match": (
        "clips with their own sound; a hash of the uid decides whether that is asked about (yes) or the sound of "
        "another video of the same split (no)"
    ),
}


DEFAULT_TASKS: dict[str, tuple[str, ...]] = {
    "image": ("caption", "match", "reference_image"),
    "video": ("caption",),
    "audio": ("transcribe",),
    "text": ("text_qa",),
    DOCUMENT: (),  # read as a whole by the joint stage
}
"""Medium of a sample -> the tasks that are written for it unless corpus.yaml names others; `text`: it has no medium."""


def default_tasks(signatures: Iterable[str]) -> list[str]:
    """The tasks that samples of these signatures can give, in the order of `RULES`."""
    media = {medium for signature in signatures for medium in set(signature.split("+")) - {"text"} or {"text"}}
    wanted = {task for medium in media for task in DEFAULT_TASKS[medium]}
    return [task for task in RULES if task in wanted]


ANSWERED_BY_TEMPLATE = frozenset({"match", "audio_visual_match", "step_order"})
"""Tasks whose answer is Yes, No or numbers, so that any language may ask."""


@dataclass(slots=True)
class RecordCounts:
    """Counts of records by (task, language), and of skipped samples by reason."""

    records: Counter[tuple[str, str]]
    skipped: Counter[str]


def make_records(
    frame: pl.DataFrame,
    neighbours: Neighbours,
    tasks: Sequence[str],
    languages: Sequence[str],
    seed: int,
    counts: RecordCounts,
    block: int = 20_000,
) -> Iterator[Record]:
    """Yield the records of one split, in uid order; those of one sample in the order of `tasks`.

    Args:
        frame: as `kept.Kept.frame`, of one split, in uid order.
        neighbours: rows into the same frame.
        counts: records and skipped samples are added to it.
    """
    split = Split(frame, neighbours, videos_of(frame), tasks)
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
                choices = languages if task in ANSWERED_BY_TEMPLATE else languages_of(row, languages)
                lang = choices[language_bits % len(choices)]
                if task == "text_qa":
                    lang = _language_of(row["question"] or "", languages, lang)
                made = _make(task, Sample(row, at, lang, bits), split)
                if isinstance(made, Record):
                    counts.records[task, lang] += 1
                    yield made
                else:
                    counts.skipped[f"{task}: {made}"] += 1


def _make(task: str, sample: Sample, split: Split) -> Record | str:
    """The record of a sample for a task, or the reason why it gives none."""
    if task in _ALONE:
        return _ALONE[task](sample)
    if task in _AMONG_OTHERS:
        return _AMONG_OTHERS[task](sample, split)
    seen = sample.is_picture or (sample.is_clip and task in ("caption", "detailed_caption"))
    if not seen or not sample.caption:
        return "no caption" if seen else "no picture"
    if task == "match":
        return _match(sample, split)
    if task == "reference_image":
        return _reference_image(sample, split)
    if task == "text_to_image":
        return sample.record(task, sample.ask(task, caption=sample.caption), None, output_image=sample.image)
    return _caption(task, sample, split.tasks)


def _caption(task: str, sample: Sample, tasks: Sequence[str]) -> Record | str:
    detailed = sample.row["tokens"] >= DETAILED_TOKENS
    if sample.is_clip and "step_caption" in tasks:
        return "step_caption instead"
    if task == "detailed_caption" and not detailed:
        return "caption too short"
    if task == "caption" and detailed and "detailed_caption" in tasks:
        return "detailed instead"
    if sample.is_clip:
        instruction = sample.ask_for_caption(f"{task}_clip")
        return sample.record(task, instruction, sample.caption, input_video=frames_of(sample.row))
    return sample.record(task, sample.ask_for_caption(task), sample.caption, input_image=sample.image)


def _match(sample: Sample, split: Split) -> Record | str:
    neighbour = int(split.neighbours.negative[sample.at])
    if neighbour < 0:
        return "no hard negative"  # nor a positive: the answer must not follow from which samples are asked
    own, others = captions_of(sample.row), captions_of(split.row(neighbour))
    lang = sample.lang if sample.lang in own and sample.lang in others else None
    yes, no = YES_NO[sample.lang]
    caption, answer = (sample.row["caption"], yes) if sample.bits >> 63 else (split.row(neighbour)["caption"], no)
    if lang:  # the language of the quoted caption must not give the answer away
        caption = own[lang] if answer == yes else others[lang]
    return sample.record("match", sample.ask("match", caption=caption.strip()), answer, input_image=sample.image)


def _reference_image(sample: Sample, split: Split) -> Record | str:
    neighbour = int(split.neighbours.reference[sample.at])
    if neighbour < 0:
        return "no similar picture"
    other = split.row(neighbour)
    reference_caption = captions_of(other).get(sample.lang) or other["caption"].strip()
    instruction = sample.ask_for_caption("reference_image", reference_caption=reference_caption)
    return sample.record(
        "reference_image",
        instruction,
        sample.caption,
        input_image=sample.image,
        reference_image=path_of(other),
    )


def _text_qa(sample: Sample) -> Record | str:
    question, answer = sample.row["question"], sample.row["answer"]
    if not question or not answer:
        return "no question and answer"
    if _ABOUT_A_PICTURE.search(question):
        return "question about a picture"
    return sample.record("text_qa", sample.ask("text_qa", question=question), answer)


def _language_of(text: str, languages: Sequence[str], otherwise: str) -> str:
    """The template language that fits a question."""
    language = "zh" if re.search(r"[\u3400-\u9fff]", text) else "en"
    return language if language in languages else otherwise


_ALONE: dict[str, Callable[[Sample], Record | str]] = {
    "text_qa": _text_qa,
    "step_caption": clips.step_caption,
    "transcribe": clips.transcribe,
}
_AMONG_OTHERS: dict[str, Callable[[Sample, Split], Record | str]] = {
    "step_order": clips.step_order,
    "what_comes_next": clips.what_comes_next,
    "audio_visual_match": clips.audio_visual_match,
}
