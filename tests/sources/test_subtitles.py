"""Files of captions as sites, tools and accidents leave them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.config import Clips
from mmdata.sources.subtitles import from_csv, from_cues, read_captions
from mmdata.sources.timed import Caption, clips_of

ROLLING = """WEBVTT
Kind: captions
Language: en

00:00:00.160 --> 00:00:02.470 align:start position:0%
_
so<00:00:00.400><c> today</c><00:00:00.640><c> we</c><00:00:00.880><c> bake</c>

00:00:02.470 --> 00:00:02.480 align:start position:0%
so today we bake
_

00:00:02.480 --> 00:00:05.030 align:start position:0%
so today we bake
bread<00:00:02.800><c> &amp;</c><00:00:03.200><c> butter</c>

00:00:05.030 --> 00:00:05.040 align:start position:0%
bread &amp; butter
_

00:00:05.040 --> 00:00:14.000 align:start position:0%
bread &amp; butter
[Music]
""".replace("_", " ")


def test_the_rolling_captions_of_youtube_say_each_word_once() -> None:
    clips, counts = clips_of(from_cues(ROLLING), Clips())
    assert [(clip.start_s, clip.end_s, clip.text) for clip in clips] == [
        (0.16, 14.0, "so today we bake bread & butter [Music]")
    ]
    assert counts == {"repeated": 4}


def cues(text: str) -> list[tuple[float, float, str]]:
    return [(caption.start_s, caption.end_s, caption.text) for caption in from_cues(text)]


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("00:00.000 --> 00:06.000\ncut\n", [(0, 6, "cut")]),
        ("WEBVTT\n00:00.000 --> 00:06.000\ncut\n00:06.000 --> 00:07.000\ntoast", [(0, 6, "cut"), (6, 7, "toast")]),
        ("1\n00:00:00,000 --> 00:00:06,000\ncut\n\n2\n00:00:06,0", [(0, 6, "cut")]),
        ("1\r\n00:00:00,000 --> 00:00:06,000\r\ncut\r\n2\r\n0:06 --> 0:08,5\r\nx", [(0, 6, "cut"), (6, 8.5, "x")]),
        ("00:00:06,000 --> 00:00:02,000\nreversed", [(6, 2, "reversed")]),
        ("1:00:00.000 --> 1:00:01.000\nlate\n\nNOTE no cue\nnor this", [(3600, 3601, "late")]),
        ("00:00.000 --> 00:06.000\n5 eggs\n12\n\n", [(0, 6, "5 eggs 12")]),
        ("no cues at all", []),
        ("", []),
    ],
)
def test_cues_are_read_as_far_as_they_can_be(text: str, parsed: list[tuple[float, float, str]]) -> None:
    assert cues(text) == parsed


def test_a_cue_without_times_is_left_to_be_counted() -> None:
    (lost, kept) = from_cues("WEBVTT\n\n00:00:00.000 --> soon\nlost\n\n00:00:06.000 --> 00:00:12.000\nkept\n")
    assert math.isnan(lost.start_s)
    assert (lost.text, kept.text) == ("lost", "kept")


def test_columns_of_a_csv_are_known_by_their_names() -> None:
    assert from_csv("text,End, START \nhi,2,1\n") == [Caption(1, 2, "hi")]
    assert from_csv('start,end,text\n1,2,"two\nlines, ""quoted"""\n') == [Caption(1, 2, 'two\nlines, "quoted"')]
    (short,) = from_csv("start,end,text\n1\n")
    assert math.isnan(short.end_s)  # type: ignore[union-attr]
    assert from_csv("start,end,text\n") == from_csv("") == []


@pytest.mark.parametrize("text", ["a,b\n1,2\n", 'start,end,text\n1,2,"' + "x" * 200_000])
def test_a_csv_that_is_none_is_bad(text: str) -> None:
    assert from_csv(text) == "bad_captions"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_the_encoding_is_told_by_the_mark(encoding: str) -> None:
    data = "1\n00:00:00,000 --> 00:00:06,000\ncafé 猫\n".encode(encoding)
    assert read_captions(data, ".srt") == [Caption(0, 6, "café 猫")]
    assert read_captions(b"0:00.000 --> 0:06.000\ncaf\xe9", ".vtt") == [Caption(0, 6, "caf\ufffd")]


@given(st.one_of(st.binary(max_size=300), st.text('0:1.2,->\n "x\t\r', max_size=300).map(str.encode)))
def test_no_bytes_break_a_reader(data: bytes) -> None:
    for suffix in (".csv", ".vtt", ".srt"):
        for head in (b"", b"start,end,text\n1,2,", b"00:00:01.000 --> 00:00:02.000\n"):
            parsed = read_captions(head + data, suffix)
            clips_of([] if isinstance(parsed, str) else parsed, Clips())
