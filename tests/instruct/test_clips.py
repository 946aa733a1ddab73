"""Each task about clips and sound alone: the record that it gives, or why it gives none."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from mmdata.instruct import clips
from mmdata.instruct.forms import Record
from tests.support.asked import clip, picture, sample_of, split_of

NO_BITS = 1 << 63


def numbers(paths: tuple[str, ...]) -> list[tuple[int, int]]:
    """The number of the sample, and that of the frame."""
    members = [path.removeprefix("tar://").partition("::")[0].split(".") for path in paths]
    return [(int(member[0], 16), int(member[1])) for member in members]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (picture(0), "no clip"),
        (clip(0, exts=["flac"]), "no clip"),
        (clip(0, caption=" "), "no caption"),
    ],
)
def test_a_step_needs_frames_and_a_caption(row: dict[str, Any], reason: str) -> None:
    assert clips.step_caption(sample_of(split_of([row]), 0)) == reason


def test_a_step_shows_its_frames_and_answers_with_its_caption() -> None:
    record = clips.step_caption(sample_of(split_of([clip(3)]), 0))
    assert isinstance(record, Record)
    assert (numbers(record.input_video), record.output) == ([(3, at) for at in range(4)], "stir pot 3")


def test_one_record_a_video_puts_its_clips_in_order() -> None:
    split = split_of([clip(number) for number in range(4)])
    assert clips.step_order(sample_of(split, 1), split) == "asked with the video's first clip"
    for bits in range(0, 1 << 40, (1 << 40) // 50):
        record = clips.step_order(sample_of(split, 0, bits=bits), split)
        assert isinstance(record, Record) and record.output is not None
        shown = numbers(record.input_video)
        assert [frame for _, frame in shown] == [2] * 4, "the middle frame"
        answered = [shown[int(number) - 1][0] for number in record.output.split(", ")]
        assert answered == [0, 1, 2, 3]
        assert [step for step, _ in shown] != [0, 1, 2, 3]


def test_a_long_video_shows_a_run_of_its_clips_drawn_by_hash() -> None:
    split = split_of([clip(number) for number in range(8)])
    runs = Counter[tuple[int, ...]]()
    for bits in range(40):
        record = clips.step_order(sample_of(split, 0, bits=bits << 16), split)
        assert isinstance(record, Record)
        runs[tuple(sorted(step for step, _ in numbers(record.input_video)))] += 1
    assert set(runs) == {tuple(range(first, first + clips.STEPS[1])) for first in range(4)}


def test_two_clips_are_too_few_to_order_and_a_picture_is_none() -> None:
    split = split_of([clip(0), clip(1), clip(2, exts=["flac"]), picture(3)])
    assert clips.step_order(sample_of(split, 0), split) == "fewer than 3 clips"
    assert clips.step_order(sample_of(split, 3), split) == "no clip"


def test_what_comes_next_shows_two_frames_of_each_of_the_clips_before() -> None:
    split = split_of([clip(number) for number in range(7)])
    record = clips.what_comes_next(sample_of(split, 6), split)
    assert isinstance(record, Record)
    assert numbers(record.input_video) == [(step, frame) for step in (2, 3, 4, 5) for frame in (0, 3)]
    assert record.output == "stir pot 6"


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        (picture(1), "no clip"),
        (clip(1, caption=None), "no caption"),
        (clip(1, "another"), "no clip before it"),
        (clip(1, start_s=38.5, end_s=45.0), "too long after the clip before it"),
    ],
)
def test_what_does_not_follow_is_not_asked_about(second: dict[str, Any], reason: str) -> None:
    split = split_of([clip(0), second])
    assert clips.what_comes_next(sample_of(split, 1), split) == reason


def test_clips_without_frames_show_nothing_of_what_came_before() -> None:
    split = split_of([clip(0, exts=["flac"]), clip(1)])
    assert clips.what_comes_next(sample_of(split, 1), split) == "no clip before it"
    just_near_enough = split_of([clip(0), clip(1, start_s=8 + clips.MAX_GAP_S, end_s=60.0)])
    assert isinstance(clips.what_comes_next(sample_of(just_near_enough, 1), just_near_enough), Record)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (picture(0), "no sound"),
        (clip(0, caption=""), "no caption"),
        (clip(0, is_told=False), "words that nobody said"),
        (picture(0, exts=["jpg", "flac"]), "words that nobody said"),
        (clip(0, speech_ratio=0.09), "no speech heard"),
    ],
)
def test_what_was_not_said_is_not_transcribed(row: dict[str, Any], reason: str) -> None:
    assert clips.transcribe(sample_of(split_of([row]), 0)) == reason


@pytest.mark.parametrize(
    "row",
    [
        clip(0),
        clip(0, speech_ratio=0.1),
        picture(0, kind="audio", exts=["flac"]),
        picture(0, exts=["jpg", "flac"], synthetic="audio"),
    ],
)
def test_words_that_were_said_are_transcribed(row: dict[str, Any]) -> None:
    record = clips.transcribe(sample_of(split_of([row]), 0))
    assert isinstance(record, Record)
    assert record.output == row["caption"]
    assert record.input_audio is not None and ".flac::" in record.input_audio


def test_the_highest_bit_decides_whose_sound_is_played() -> None:
    split = split_of([clip(0, "a"), clip(1, "a"), clip(2, "b")])
    for lang, yes, no in (("en", "Yes", "No"), ("zh", "是", "否")):
        own = clips.audio_visual_match(sample_of(split, 0, lang, NO_BITS), split)
        other = clips.audio_visual_match(sample_of(split, 0, lang), split)
        assert isinstance(own, Record) and isinstance(other, Record)
        assert own.input_audio is not None and other.input_audio is not None
        assert (own.output, other.output) == (yes, no)
        assert own.input_audio.startswith(f"tar://{0:032x}.flac")
        assert other.input_audio.startswith(f"tar://{2:032x}.flac"), "never of the same video"


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        (picture(0), clip(1, "b"), "no clip"),
        (clip(0, exts=["000.jpg"]), clip(1, "b"), "no sound"),
        (clip(0, synthetic="audio"), clip(1, "b"), "no sound"),
        (clip(0, silence_ratio=0.95), clip(1, "b"), "silent"),
        (clip(0), clip(1), "no other video's sound"),
        (clip(0), clip(1, "b", silence_ratio=0.95), "no other video's sound"),
        (clip(0), clip(1, "b", synthetic="audio"), "no other video's sound"),
    ],
)
@pytest.mark.parametrize("bits", [0, NO_BITS])
def test_without_two_sounds_nothing_is_matched_whatever_the_hash(
    first: dict[str, Any], second: dict[str, Any], reason: str, bits: int
) -> None:
    split = split_of([first, second])
    assert clips.audio_visual_match(sample_of(split, 0, bits=bits), split) == reason


@pytest.mark.parametrize("count", [3, 4, 5])
def test_each_order_is_drawn_but_the_one_that_is_right_already(count: int) -> None:
    drawn = Counter(tuple(clips._shuffled(count, bits)) for bits in range(10_000))
    assert tuple(range(count)) not in drawn
    assert all(sorted(order) == list(range(count)) for order in drawn)
    assert len(drawn) == {3: 5, 4: 23, 5: 119}[count]
