"""Files of captions as sites, tools and accidents leave them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.config import Clips
from mmdata.sources import subtitles
from mmdata.sources.subtitles import from_csv, from_cues, read_captions, spoken_text
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
        (
            "0:00 --> 0:06\nfirst\n\nsecond\n \nthird\n\n2\n0:06 --> 0:08\nx",
            [(0, 6, "first second   third"), (6, 8, "x")],
        ),
        ("1\n0:00 --> 0:06\npress --> to go\non\n\n\n2\n0:06 --> 0:08\nx", [(0, 6, "press --> to go on"), (6, 8, "x")]),
        ("0:00 --> 0:06\nwe meet at\n10:30\n", [(0, 6, "we meet at 10:30")]),
        ("1\n0:00 --> 0:06\nsecond\n\n42\n\n2\n0:06 --> 0:08\nx", [(0, 6, "second 42"), (6, 8, "x")]),
        ("WEBVTT\n\nid a\n0:00 --> 0:06\nx\n\nid b\n0:06 --> 0:08 line:0 align:start\ny", [(0, 6, "x"), (6, 8, "y")]),
        (
            "WEBVTT\n\nSTYLE\n::cue {}\n\nREGION\nid:x\n\n0:00 --> 0:06\nx\n\nNOTE\nno\n\n0:06 --> 0:08\nNOTE y",
            [(0, 6, "x"), (6, 8, "NOTE y")],
        ),
        ("1\r00:00:00,5 --> 00:00:06,25\rold Mac\r", [(0.5, 6.25, "old Mac")]),
        ("\ufeff1\n00:00:00,000-->00:00:06,000  X1:10 Y1:20\nx", [(0, 6, "x")]),
        ("00: 00: 01, 000 --> 00: 00: 06, 000\nx\n\n2\n00:00:06,000 -> 00:00:08,000\ny", [(1, 6, "x"), (6, 8, "y")]),
        ("0:00 --> 0:06\nDialogue: 0,0:00:01.00,0:00:02.00,Default,,0,0,0,,so, this", [(0, 6, "so, this")]),
        ("0:00 --> 0:06\n\n\n0:06 --> 0:08\nx", [(0, 6, ""), (6, 8, "x")]),
        ("99999999:00:00.000 --> 99999999:00:01.000\nfar", [(359999996400.0, 359999996401.0, "far")]),
        ("no cues at all", []),
        ("", []),
    ],
)
def test_cues_are_read_as_far_as_they_can_be(text: str, parsed: list[tuple[float, float, str]]) -> None:
    assert cues(text) == parsed


@pytest.mark.parametrize(
    "times",
    [
        "00:00:00.000 --> soon",
        "??:?? --> 00:00:06.000",
        "--> 00:00:06.000",
        "-00:00:02,000 --> 00:00:06,000",
        "- 00:00:02,000 --> 00:00:06,000",
        "00:00:01:12 --> 00:00:03:00",  # with frames
        "00:00:02,000 --> -00:00:01,000",
    ],
)
def test_a_cue_without_times_is_left_to_be_counted(times: str) -> None:
    (lost, kept) = from_cues(f"WEBVTT\n\n{times}\nlost\n\n00:00:06.000 --> 00:00:12.000\nkept\n")
    assert math.isnan(lost.start_s + lost.end_s)
    assert (lost.text, kept.text) == ("lost", "kept")
    _, counts = clips_of([lost, kept], Clips())
    assert counts == {"bad_times": 1}


def test_columns_of_a_csv_are_known_by_their_names() -> None:
    assert from_csv("text,End, START \nhi,2,1\n") == [Caption(1, 2, "hi")]
    assert from_csv('start,end,text\n1,2,"two\nlines, ""quoted"""\n') == [Caption(1, 2, 'two\nlines, "quoted"')]
    (short,) = from_csv("start,end,text\n1\n")
    assert math.isnan(short.end_s)  # type: ignore[union-attr]
    assert from_csv("start,end,text\n") == from_csv("") == []


def test_a_comma_in_the_last_column_needs_no_quotation_marks() -> None:
    assert from_csv('start,end,text\n1,2,salt, pepper\n3, 4,"oil, too"\n') == [
        Caption(1, 2, "salt, pepper"),
        Caption(3, 4, "oil, too"),
    ]
    (moved,) = from_csv("start,text,end\n1,salt, pepper,2\n")
    assert math.isnan(moved.start_s)  # type: ignore[union-attr]


@pytest.mark.parametrize("missing", ["nan", "NaN", "<NA>", "None", ""])
def test_a_text_that_pandas_lacks_is_no_text(missing: str) -> None:
    assert from_csv(f"start,end,text\n0,5,{missing}\n5,9,nan bread\n") == [
        Caption(0, 5, ""),
        Caption(5, 9, "nan bread"),
    ]
    assert [spoken_text(value) for value in (missing, math.nan, None, True, ["a"], {"a": 1})] == [""] * 6
    assert [spoken_text(value) for value in (1, 2.5, "half \ud83d")] == ["1", "2.5", "half \ufffd\ufffd\ufffd"]


ROWS = "".join(f"{n},{n + 1},words {n}\n" for n in range(2, 9))


@pytest.mark.parametrize(
    "text",
    [
        "a,b\n1,2\n",
        "start,end,text,text\n1,2,a,b\n",
        'start,end,text\n1,2,"' + "x" * 200_000,
        f'start,end,text\n0,1,"never closed\n{ROWS}',
        f'start,end,text\n0,1,"closed by\n{ROWS}9,10,"another"\n',
        f'start,end,text\n0,1,"closed by\n{ROWS}9,10,another"\n',
        'text,start,end\n"closed by,0,1\nsome,2,3\n",4,5\n',
        'start,end,text\n0,1,"say "hi" there"\n',
    ],
)
def test_a_csv_that_is_none_is_bad(text: str) -> None:
    assert from_csv(text) == "bad_captions"


def test_a_file_is_decoded_or_its_encoding_is_a_reason() -> None:
    data = "1\n00:00:00,000 --> 00:00:06,000\n{}\n".format
    assert read_captions(data("café déjà vu").encode("cp1252"), ".srt") == [Caption(0, 6, "café déjà vu")]
    assert read_captions(data("хлеб и масло").encode("cp1251"), ".srt") == "bad_encoding"
    assert read_captions(data("хлеб и масло").encode("cp1251"), ".srt", "cp1251") == [Caption(0, 6, "хлеб и масло")]
    assert read_captions("start,end,text\n0,6,café 猫\n".encode("utf-16"), ".csv") == [Caption(0, 6, "café 猫")]


def test_a_file_without_end_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subtitles, "MAX_CAPTIONS_BYTES", 20)
    assert read_captions(b"0:00.000 --> 0:06.000\ntoo much", ".vtt") == "bad_captions"


@given(st.one_of(st.binary(max_size=300), st.text('0:1.2,->\n "x\t\r', max_size=300).map(str.encode)))
def test_no_bytes_break_a_reader(data: bytes) -> None:
    for suffix in (".csv", ".vtt", ".srt"):
        for head in (b"", b"start,end,text\n1,2,", b"00:00:01.000 --> 00:00:02.000\n"):
            parsed = read_captions(head + data, suffix)
            clips_of([] if isinstance(parsed, str) else parsed, Clips())
