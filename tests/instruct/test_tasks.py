"""Which records a sample gives, task by task, and why it is passed over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, get_args

import pytest

from mmdata.config import Instruct
from mmdata.instruct.forms import Record
from mmdata.instruct.tasks import DETAILED_TOKENS, RULES, RecordCounts, default_tasks, make_records
from tests.support.asked import clip, picture, split_of

ALL = tuple(RULES)


def made(
    rows: Sequence[dict[str, Any]],
    tasks: Sequence[str],
    languages: Sequence[str] = ("en",),
    negative: Sequence[int] = (),
    reference: Sequence[int] = (),
    block: int = 20_000,
) -> tuple[list[Record], RecordCounts]:
    split = split_of(rows, tasks, negative, reference)
    counts = RecordCounts(Counter(), Counter())
    return list(make_records(split.frame, split.neighbours, tasks, languages, 0, counts, block)), counts


def test_each_task_that_a_corpus_can_ask_for_has_its_rule() -> None:
    (names,) = get_args(Instruct.model_fields["tasks"].annotation)
    assert set(RULES) == set(get_args(names))


@pytest.mark.parametrize(
    ("row", "task", "reason"),
    [
        (picture(0, caption=" "), "caption", "no caption"),
        (picture(0, exts=[]), "caption", "no picture"),
        (clip(0), "match", "no picture"),
        (clip(0), "text_to_image", "no picture"),
        (picture(0), "detailed_caption", "caption too short"),
        (picture(0), "match", "no hard negative"),
        (picture(0), "reference_image", "no similar picture"),
        (picture(0), "text_qa", "no question and answer"),
        (picture(0, question="What is in the picture?", answer="a cat"), "text_qa", "question about a picture"),
        (picture(0, question="图里有什么?", answer="猫"), "text_qa", "question about a picture"),
        (picture(0), "step_caption", "no clip"),
        (picture(0), "transcribe", "no sound"),
        (picture(0), "audio_visual_match", "no clip"),
    ],
)
def test_a_sample_that_is_passed_over_is_counted_with_the_reason(row: dict[str, Any], task: str, reason: str) -> None:
    records, counts = made([row], [task])
    assert records == []
    assert counts.skipped == {f"{task}: {reason}": 1}


def test_a_long_caption_is_asked_for_once() -> None:
    rows = [picture(0, tokens=DETAILED_TOKENS - 1), picture(1, tokens=DETAILED_TOKENS)]
    records, counts = made(rows, ["caption", "detailed_caption"])
    assert [(int(record.id[:32], 16), record.task) for record in records] == [(0, "caption"), (1, "detailed_caption")]
    assert counts.skipped == {"detailed_caption: caption too short": 1, "caption: detailed instead": 1}
    alone, _ = made(rows, ["caption"])
    assert [record.task for record in alone] == ["caption", "caption"]


def test_a_clips_caption_goes_to_step_caption_where_that_is_on() -> None:
    records, counts = made([clip(0)], ["caption", "step_caption"])
    assert [record.task for record in records] == ["step_caption"]
    assert counts.skipped == {"caption: step_caption instead": 1}
    (record,), _ = made([clip(0)], ["caption"])
    assert (len(record.input_video), record.input_image) == (4, None)


def test_a_match_asks_about_its_own_caption_or_the_hard_negatives() -> None:
    rows = [picture(number) for number in range(200)]
    records, counts = made(rows, ["match"], negative=[*range(1, 200), -1], reference=[-1] * 200)
    answers = Counter[str]()
    for number, record in enumerate(records):
        other = record.output == "No"
        answers[str(record.output)] += 1
        assert f"the grey cat {number + other}" in record.instruction
    assert counts.skipped == {"match: no hard negative": 1}
    assert 70 < answers["Yes"] < 130


ZH = [{"lang": "zh", "caption": "一只灰色的猫"}]


def test_a_question_and_its_answer_are_in_one_language() -> None:
    rows = [picture(n, caption_lang="en", further_captions=ZH if n % 2 else None) for n in range(200)]
    rows += [picture(n, caption="一只猫", caption_lang=None) for n in range(200, 220)]
    rows += [clip(n, caption_lang="en") for n in range(220, 240)]
    records, _ = made(rows, ["caption", "text_to_image", "transcribe"], ["en", "zh"])
    for record in records:
        words = record.output or record.instruction
        assert ("猫" in words) == (record.lang == "zh"), record
    asked = Counter((int(record.id[:32], 16) // 100, record.lang) for record in records if record.task == "caption")
    assert asked[0, "zh"] + asked[1, "zh"] > 35, "half of those with a Chinese caption"
    assert asked[2, "zh"] == 20


def test_a_caption_in_no_language_of_the_templates_is_asked_for_by_name() -> None:
    records, _ = made(
        [picture(n, caption="eine Katze", caption_lang="de") for n in range(20)], ["caption"], ["en", "zh"]
    )
    assert {record.lang for record in records} == {"en", "zh"}
    for record in records:
        assert ("German" if record.lang == "en" else "德语") in record.instruction


def test_the_language_of_a_quoted_caption_does_not_give_the_answer_away() -> None:
    further = [ZH if n % 3 else None for n in range(300)]
    rows = [picture(n, caption_lang="en", further_captions=further[n]) for n in range(300)]
    records, _ = made(rows, ["match"], ["en", "zh"], negative=[*range(1, 300), 0], reference=[-1] * 300)
    asked = Counter((record.lang, "猫" in record.instruction, record.output) for record in records)
    for lang, answers in (("en", ("Yes", "No")), ("zh", ("是", "否"))):
        yes, no = (
            asked[lang, True, answer] / sum(n for key, n in asked.items() if key[2] == answer) for answer in answers
        )
        assert abs(yes - no) < 0.15
    assert not asked["en", True, "Yes"]


def test_a_reference_shows_both_pictures_and_says_the_others_caption() -> None:
    rows = [picture(0), picture(1, caption=" a grey kitten ")]
    records, _ = made(rows, ["reference_image"], negative=[-1, -1], reference=[1, -1])
    (record,) = records
    assert record.output == "the grey cat 0"
    assert "a grey kitten" in record.instruction
    assert record.input_image is not None and record.input_image.startswith(f"tar://{0:032x}.jpg")
    assert record.reference_image is not None and record.reference_image.startswith(f"tar://{1:032x}.jpg")


def test_an_image_to_be_made_is_the_target() -> None:
    (record,), _ = made([picture(0)], ["text_to_image"])
    assert (record.output, record.input_image) == (None, None)
    assert record.output_image is not None and "the grey cat 0" in record.instruction


def test_a_question_is_asked_in_its_own_language_where_that_is_wanted() -> None:
    rows = [picture(0, question="一加一等于几?", answer="二"), picture(1, question="One plus one?", answer="two")]
    both, _ = made(rows, ["text_qa"], ["en", "zh"])
    assert [record.lang for record in both] == ["zh", "en"]
    english, counts = made(rows, ["text_qa"], ["en"])
    assert [record.lang for record in english] == ["en", "en"]
    assert counts.records == {("text_qa", "en"): 2}


def test_blocks_change_nothing_and_records_keep_their_order() -> None:
    rows = [clip(number, "ab"[number % 2]) if number % 3 else picture(number) for number in range(30)]
    whole, counts = made(rows, ALL, ["en", "zh"])
    pieces, of_pieces = made(rows, ALL, ["en", "zh"], block=7)
    assert pieces == whole and of_pieces == counts
    order = [(record.id[:32], ALL.index(record.task)) for record in whole]
    assert order == sorted(order)
    assert {record.lang for record in whole} == {"en", "zh"}
    assert sum(counts.records.values()) == len(whole)
    assert sum(counts.records.values()) + sum(counts.skipped.values()) == len(rows) * len(ALL)


@pytest.mark.parametrize(
    ("signatures", "tasks"),
    [
        (["image+text"], ["caption", "match", "reference_image"]),
        (["text"], ["text_qa"]),
        (["audio+text", "audio"], ["transcribe"]),
        (["text+video"], ["caption"]),
        (["audio+text+video", "text"], ["caption", "text_qa", "transcribe"]),
        (["image+text", "audio+image+text"], ["caption", "match", "reference_image", "transcribe"]),
        ([], []),
    ],
)
def test_the_tasks_follow_from_the_signatures(signatures: list[str], tasks: list[str]) -> None:
    assert default_tasks(signatures) == tasks
