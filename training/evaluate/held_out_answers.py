"""Generates answers to held-out samples, with their own pictures and with those of other samples, and measures them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NotRequired, TypedDict

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from mmdata.report.captions_page import MAX_CAPTIONS
from mmdata.report.model_captions import CaptionedPicture, captioned_picture, names_concept
from mmdata.report.stored import small_picture
from training.data.batch_readers import RowReader
from training.data.batch_types import to_device
from training.data.examples import Example
from training.data.sample_index import TrainingRelease
from training.data.sample_reader import BadSample
from training.data.text_codec import IGNORED, MEDIA_PLACEHOLDER, Encoded
from training.data.training_data import TrainingData
from training.evaluate.answer import ANSWER_TOKENS, prompt_length, prompts_batch
from training.metrics.text_metrics import bleu, rouge, vqa_accuracy
from training.stages.stage_model import StageModel

SHORT_ANSWER_WORDS = 3  # an expected answer of at most so many words is scored by VQA accuracy
BATCH_ANSWERS = 32  # generated at once
PROMPTS_AT_ONCE = 256  # whose media are in memory

Prompt = tuple[Example, Encoded]


class Answer(TypedDict):
    """A generated answer to a held-out sample; one entry of `answers` in metrics.json."""

    uid: str
    prompt: str
    expected: str
    generated: str
    with_other_picture: NotRequired[str]  # captions: generated from the picture of another sample
    concept: NotRequired[str | None]  # captions: of the sample, in the release's index


@torch.no_grad()
def generate_answers(
    built: StageModel, reader: RowReader, data: TrainingData, count: int, device: torch.device
) -> list[Answer]:
    """Generate the likeliest answers to the first samples of a reader's order.

    The media of `PROMPTS_AT_ONCE` samples are in memory at most. Each is also shown another's of these.
    """
    answers: list[Answer] = []
    for indices in np.array_split(reader.order.pick(0, np.arange(count)).samples, -(-count // PROMPTS_AT_ONCE) or 1):
        answers += _answers(built, reader, indices, device)
    if built.stage == "joint":
        uids = [answer["uid"] for answer in answers]
        concepts = {uid: name for release, _ in data.releases for uid, name in concepts_of(release, uids).items()}
        for answer in answers:
            answer["concept"] = concepts.get(answer["uid"])
    return answers


def _answers(built: StageModel, reader: RowReader, indices: np.ndarray, device: torch.device) -> list[Answer]:
    """Answers to some samples of a reader's source."""
    _, codec = built.generative()
    reader.source.expect(indices.tolist())
    prompts: list[Prompt] = []
    answers: list[Answer] = []
    for index in indices.tolist():
        example, _ = reader.example(index)
        if example.is_document:
            continue  # it asks for no answer; the perplexity measures it
        *prompt_turns, answer_turn = example.turns
        if built.stage == "instruct":
            prompt = codec.prompt(prompt_turns)
            prompt_text = " ".join(turn.text for turn in prompt_turns)
        else:  # stage `joint` captions: the prompt is the start token and the media
            encoded = reader.encode(example)
            prompt, prompt_text = Encoded(encoded.ids[:1], [IGNORED], encoded.media_at), ""
        prompts.append((example, prompt))
        shown = prompt_text.replace(MEDIA_PLACEHOLDER, "<media> ").strip()
        answers.append(Answer(uid=example.uid, prompt=shown, expected=answer_turn.text, generated=""))
    for at, text in _generated(built, prompts, device):
        answers[at]["generated"] = text
    if built.stage == "joint":
        for at, text in _generated(built, _with_other_media(prompts), device):
            answers[at]["with_other_picture"] = text
    return answers


def _generated(built: StageModel, prompts: Sequence[Prompt | None], device: torch.device) -> Iterator[tuple[int, str]]:
    """Yields the position of each prompt and its answer. Prompts of one length are continued together."""
    model, codec = built.generative()
    by_length: defaultdict[tuple[int, tuple[int, int]], list[tuple[int, Prompt]]] = defaultdict(list)
    for at, prompt in enumerate(prompts):
        if prompt is not None:
            by_length[prompt_length(built, *prompt), prompt[0].media.counts].append((at, prompt))
    for group in by_length.values():
        for first in range(0, len(group), BATCH_ANSWERS):
            chosen = group[first : first + BATCH_ANSWERS]
            batch = to_device(prompts_batch(built, [prompt for _, prompt in chosen]), device)
            for (at, _), ids in zip(chosen, model.generate(batch, ANSWER_TOKENS, codec.ends), strict=True):
                yield at, codec.decode(ids)


def _with_other_media(prompts: Sequence[Prompt]) -> list[Prompt | None]:
    """Each prompt with the media of the next one that has as many; None for a prompt without pictures, or alone."""
    by_counts: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    for at, (example, _) in enumerate(prompts):
        by_counts[example.media.counts].append(at)
    swapped: list[Prompt | None] = [None] * len(prompts)
    for (pictures, _), places in by_counts.items():
        if pictures and len(places) > 1:
            for at, other in zip(places, [*places[1:], places[0]], strict=True):
                example, prompt = prompts[at]
                swapped[at] = replace(example, media=prompts[other][0].media), prompt
    return swapped


def concepts_of(release: TrainingRelease, uids: Sequence[str]) -> dict[str, str]:
    """The concept of each of some samples, where the release's index has one."""
    path = release.release.folder / "index.parquet"
    is_wanted = pl.col("uid").is_in(list(uids)) & pl.col("concept").is_not_null()
    concepts: dict[str, str] = {}
    with path.open("rb") as file:
        for batch in pq.ParquetFile(file).iter_batches(columns=["uid", "concept"]):
            rows = pl.DataFrame(pa.Table.from_batches([batch])).filter(is_wanted)
            concepts.update(rows.select("uid", "concept").iter_rows())
    return concepts


def captioned_pictures(reader: RowReader, answers: Sequence[Answer]) -> list[CaptionedPicture]:
    """The first captions of `generate_answers` whose samples have pictures, with the first picture of each."""
    captioned: list[CaptionedPicture] = []
    for index, answer in zip(reader.order.pick(0, np.arange(len(answers))).samples, answers, strict=True):
        if len(captioned) == MAX_CAPTIONS:
            break
        try:
            pictures = reader.source.encoded_media(int(index)).pictures
        except BadSample:
            continue
        if pictures:
            captioned.append(captioned_picture(answer, small_picture(pictures[0].data)))
    return captioned


def answer_metrics(answers: list[Answer]) -> dict[str, float]:
    """BLEU and ROUGE of all answers, VQA accuracy of those whose expected answer is short, and `concept_metrics`."""
    if not answers:
        return {}
    generated, expected = [answer["generated"] for answer in answers], [answer["expected"] for answer in answers]
    metrics = {**bleu(generated, expected), **rouge(generated, expected), **concept_metrics(answers)}
    short = [answer for answer in answers if len(answer["expected"].split()) <= SHORT_ANSWER_WORDS]
    if short:
        accuracy = vqa_accuracy([answer["generated"] for answer in short], [answer["expected"] for answer in short])
        metrics |= {"vqa_accuracy": accuracy, "vqa_answers": float(len(short))}
    return metrics


def concept_metrics(answers: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The share of captions that name the concept of their sample: `concept_named`.

    Counted are pictures whose own caption names its concept, and for which there is a caption made from another
    sample's picture: its share is `concept_named_with_other_pictures`. `concept_captions` is their number. Empty if
    there are none: concepts that are clusters have no names.
    """
    named = [
        (str(answer["generated"]), str(answer["with_other_picture"]), concept)
        for answer in answers
        if (concept := answer.get("concept")) is not None
        and answer.get("with_other_picture") is not None
        and names_concept(str(answer["expected"]), concept)
    ]
    if not named:
        return {}
    return {
        "concept_named": sum(names_concept(right, concept) for right, _, concept in named) / len(named),
        "concept_named_with_other_pictures": sum(names_concept(other, concept) for _, other, concept in named)
        / len(named),
        "concept_captions": float(len(named)),
    }
