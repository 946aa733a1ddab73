"""Timed captions: nothing is said twice, nothing is lost, and clips keep their bounds."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.config import Clips
from mmdata.sources.timed import Caption, Clip, cleaned, clips_of, split
from tests.support.cpu_time import least_cpu_s


def captions(*rows: tuple[float, float, str]) -> list[Caption]:
    return [Caption(*row) for row in rows]


def texts(cleaned_captions: list[Caption] | list[Clip]) -> list[str]:
    return [caption.text for caption in cleaned_captions]


def test_rolling_captions_say_each_word_once() -> None:
    rolling = captions(
        (0.0, 2.0, "so today we will"),
        (1.5, 4.0, "so today we will bake a simple bread"),
        (4.0, 6.0, "a simple bread first take"),
        (6.0, 6.01, "a simple bread first take"),
        (6.01, 8.0, "first take some flour"),
    )
    cleaned_captions, counts = cleaned(rolling)
    assert " ".join(texts(cleaned_captions)) == "so today we will bake a simple bread first take some flour"
    assert counts["repeated"] == 4


def test_what_a_speaker_says_twice_stays() -> None:
    cleaned_captions, counts = cleaned(
        captions((0, 1, "it is very"), (1, 2, "very good"), (9, 10, "very good"), (20, 21, "very good"))
    )
    assert texts(cleaned_captions) == ["it is very", "very good", "very good", "very good"]
    assert not counts["repeated"]


def test_tags_and_entities_go() -> None:
    cleaned_captions, _ = cleaned(
        captions((0, 1, "<c.color>salt</c> &amp; <00:00:01.500>pepper"), (2, 3, r"{\an8}3 < 4 &lt;x>"))
    )
    assert texts(cleaned_captions) == ["salt & pepper", "3 < 4 <x>"]


def test_bad_times_are_counted_and_the_rest_goes_on() -> None:
    nan, inf = math.nan, math.inf
    cleaned_captions, counts = cleaned(
        captions((nan, 1, "a"), (0, inf, "b"), (-1, 1, "c"), (5, 4, "d"), (1, 2, "  "), (2, 3, "kept"), (7, 7, "late"),
                 (1e300, 1e300, "far"), (1, 2, "half \ufffd"), (1, 2, "&#" + "9" * 5_000 + ";"), (1, 2, "\u200b\u2800"))
    )  # fmt: skip
    assert texts(cleaned_captions) == ["kept late"]
    assert counts == {"bad_times": 5, "bad_encoding": 2, "empty": 2, "zero_length": 1}


def test_zero_has_no_sign() -> None:
    (caption,) = cleaned(captions((-0.0, 1, "a")))[0]
    assert str(caption.start_s) == "0.0"


@pytest.mark.parametrize(("step_s", "text"), [(0.0, "word {}"), (0.0, "a b a b a b {}"), (11.0, "word {}")])
def test_the_time_is_in_proportion_to_the_captions(step_s: float, text: str) -> None:
    def cpu_s(count: int) -> float:
        many = [Caption(n * step_s, n * step_s + 1, text.format(n)) for n in range(count)]
        return least_cpu_s(lambda: clips_of(many, Clips()))

    assert cpu_s(40_000) < 10 * cpu_s(10_000) + 0.1


def test_overlapping_captions_end_where_the_next_begins() -> None:
    cleaned_captions, _ = cleaned(captions((0, 5, "one"), (3, 8, "two"), (3, 9, "three"), (20, 22, "four")))
    assert cleaned_captions == captions((0, 3, "one"), (3, 9, "two three"), (20, 22, "four"))


def test_neighbours_merge_until_a_clip_is_long_enough() -> None:
    spoken = captions(*((4.0 * n, 4.0 * n + 4, f"w{n}") for n in range(7)))
    clips, _ = clips_of(spoken, Clips(min_clip_s=10, max_clip_s=20, max_gap_s=5))
    assert texts(clips) == ["w0 w1 w2", "w3 w4 w5 w6"], "the short rest joins the clip before it"
    assert [(clip.start_s, clip.end_s) for clip in clips] == [(0, 12), (12, 28)]


def test_a_long_gap_parts_clips() -> None:
    clips, _ = clips_of(captions((0, 2, "a"), (40, 42, "b")), Clips(min_clip_s=10, max_gap_s=10))
    assert [(clip.start_s, clip.end_s) for clip in clips] == [(0, 2), (40, 42)]


def test_a_caption_that_is_too_long_is_cut_between_words() -> None:
    pieces = split(Caption(10, 70, "one two three four five six"), 25)
    assert texts(pieces) == ["one two", "three four", "five six"]
    assert [(caption.start_s, caption.end_s) for caption in pieces] == [(10, 30), (30, 50), (50, 70)]
    assert [tuple(piece) for piece in split(Caption(0, 70, "a b c d e f g"), 25)] == [
        (0, 10, "a"), (10, 30, "b c"), (30, 50, "d e"), (50, 70, "f g"),
    ], "time in proportion to words, and none over the limit"  # fmt: skip
    assert split(Caption(0, 100, "alone"), 30) == captions((0, 30, "alone"))


times = st.floats(0, 500, allow_nan=False)
words = st.lists(st.sampled_from(["cut", "the", "bread", "and", "stir", "it", "well"]), max_size=6).map(" ".join)
settings = st.builds(
    lambda low, more, gap: Clips(min_clip_s=low, max_clip_s=low + more, max_gap_s=gap),
    st.floats(0, 20),
    st.floats(0.5, 40),
    st.floats(0, 20),
)


@given(st.lists(st.tuples(times, times, words), max_size=30), settings)
def test_clips_keep_their_bounds_and_no_word_is_lost_or_doubled(
    rows: list[tuple[float, float, str]], clip_settings: Clips
) -> None:
    spoken = captions(*rows)
    clips, _ = clips_of(spoken, clip_settings)
    kept, _ = cleaned(spoken)
    assert " ".join(texts(clips)).split() == " ".join(texts(kept)).split()
    end = 0.0
    for clip in clips:
        assert end <= clip.start_s < clip.end_s
        end = clip.end_s
        assert clip.end_s - clip.start_s <= clip_settings.max_clip_s + 0.002
        assert clip.start_s == clip.captions[0].start_s
        assert clip.end_s == clip.captions[-1].end_s
        gaps = [b.start_s - a.end_s for a, b in zip(clip.captions, clip.captions[1:], strict=False)]
        assert max(gaps, default=0) <= clip_settings.max_gap_s


@given(st.lists(st.tuples(times, times, st.integers(1, 5)), max_size=30), settings)
def test_words_that_differ_all_come_out_once(rows: list[tuple[float, float, int]], clip_settings: Clips) -> None:
    spoken = captions(*((a, b, " ".join(f"w{n}.{k}" for k in range(count))) for n, (a, b, count) in enumerate(rows)))
    clips, counts = clips_of(spoken, clip_settings)
    valid = [caption for caption in spoken if caption.start_s <= caption.end_s]
    expected = sorted(word for caption in valid for word in caption.text.split())
    if any(round(caption.end_s, 3) > round(caption.start_s, 3) for caption in valid):
        assert sorted(" ".join(texts(clips)).split()) == expected
    assert counts["bad_times"] == len(spoken) - len(valid)
    assert not counts["repeated"]


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(2, 6), st.floats(0.5, 8)), max_size=30), settings)
def test_captions_that_roll_say_the_speech_once(steps: list[tuple[int, int, float]], clip_settings: Clips) -> None:
    spoken = [f"w{n}" for n in range(sum(fresh for fresh, _, _ in steps))]
    rolling, done, at = [], 0, 0.0
    for fresh, again, length in steps:
        shown = spoken[max(0, done - again) : done + fresh] if done else spoken[:fresh]
        rolling.append(Caption(at, at + length, " ".join(shown)))
        done, at = done + fresh, at + length
    clips, _ = clips_of(rolling, clip_settings)
    assert " ".join(texts(clips)).split() == spoken


@given(st.lists(st.tuples(times, times, words), max_size=20), st.randoms())
def test_the_order_in_which_captions_stand_does_not_matter(
    rows: list[tuple[float, float, str]], random: object
) -> None:
    rows = [(start, end, f"{text} {n}") for n, (start, end, text) in enumerate(rows)]
    rows = list({round(row[0], 3): row for row in rows}.values())
    shuffled = list(rows)
    random.shuffle(shuffled)
    clip_settings = Clips()
    assert clips_of(captions(*rows), clip_settings) == clips_of(captions(*shuffled), clip_settings)


@pytest.mark.parametrize("count", [0, 1])
def test_few_captions_give_few_clips(count: int) -> None:
    clips, counts = clips_of(captions((0, 3, "only this"))[:count], Clips())
    assert texts(clips) == ["only this"][:count]
    assert not counts
