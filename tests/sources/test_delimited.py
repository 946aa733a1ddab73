"""Records of CSV and TSV files: a stray quote never takes the rows after it along."""

from __future__ import annotations

import csv
import io
import random
import time

import pytest

from mmdata.sources.delimited import header_of, records
from mmdata.sources.lines import Lines


def read(text: str, *, tabs: bool = False) -> list[list[str] | None]:
    lines = Lines(io.BytesIO(text.encode()))
    header = header_of(lines, tabs=tabs)
    return list(records(lines, header, tabs=tabs))


def test_a_line_of_a_tsv_is_a_row_with_the_quotes_that_it_has() -> None:
    captions = ['"Big" house', '"The old man', 'birds in the "sky', "a, b", '"whole"', 'say ""', "end"]
    text = "caption\turl\n" + "".join(f"{caption}\thttp://e/{n}\n" for n, caption in enumerate(captions))
    assert read(text, tabs=True) == [[caption, f"http://e/{n}"] for n, caption in enumerate(captions)]


def test_blank_lines_are_no_rows_and_lines_of_another_width_are_malformed() -> None:
    assert read("a\tb\n\n\r\n1\t2\r\n\t\n1\n1\t2\t3\nx\ry\tz", tabs=True) == [
        ["1", "2"], ["", ""], None, None, ["x\ry", "z"],
    ]  # fmt: skip


def test_a_tsv_whose_header_is_quoted_quotes_its_values() -> None:
    assert read('"a"\t"b"\n"say ""hi"""\t2\n"open\tx\n', tabs=True) == [['say "hi"', "2"], ['"open', "x"]]


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        # RFC 4180: values of several lines
        ('u,c\nhttp://e/1,"two\nlines, ""one"" caption"\n', [["http://e/1", 'two\nlines, "one" caption']]),
        ('c,u\n"two\r\n\r\nlines",http://e/1\n', [["two\r\n\r\nlines", "http://e/1"]]),
        ('c,u\n"see\nhttp://other.org/page\nfor more",http://e/1\n',
         [["see\nhttp://other.org/page\nfor more", "http://e/1"]]),
        # quotes that belong to the words
        ('c,u\n"Big" house,http://e/1\n5" nails,http://e/2\n', [['"Big" house', "http://e/1"], ['5" nails', "http://e/2"]]),
        ('c,u\n"a, "b" c",http://e/1\n', [['a, b" c"', "http://e/1"]]),
        # a quote that is never closed, or closed by another row
        ('u,c\nhttp://e/1,"open\nhttp://e/2,two\nhttp://e/3,three\n',
         [None, ["http://e/2", "two"], ["http://e/3", "three"]]),
        ('u,c\nhttp://e/1,"open\nhttp://e/2,he is 6\'2"\nhttp://e/3,three\n',
         [None, ["http://e/2", "he is 6'2\""], ["http://e/3", "three"]]),
        ('c,u\n"open,http://e/1\nhe is 6\'2",http://e/2\n', [None, ["he is 6'2\"", "http://e/2"]]),
        ('u,c\nhttp://e/1,"open\nhttp://e/2,a, b, 6\'2"\n', [None, None]),
        ('id,c\n1,"open\n2,b\n3,he is 6\'2"\n4,"two\nlines"\n',
         [None, ["2", "b"], ["3", "he is 6'2\""], ["4", "two\nlines"]]),
        ('c,id\n"open,1\n6\'2",2\nc,3\n', [None, ["6'2\"", "2"], ["c", "3"]]),
        ('u\n"http://e/1\nhttp://e/2"\nhttp://e/3\n', [None, ['http://e/2"'], ["http://e/3"]]),
    ],
)  # fmt: skip
def test_a_csv_record_of_several_lines_is_believed_if_it_joins_no_rows(text: str, rows: list[list[str] | None]) -> None:
    assert read(text) == rows


def test_any_mix_of_stray_quotes_gives_each_url_to_its_own_row() -> None:
    random.seed(7)
    for _ in range(300):
        rows = [("".join(random.choices("ab ,\"'", k=random.randint(1, 6))), f"http://e/{n}") for n in range(12)]
        for values in read("c,u\n" + "".join(f"{caption},{url}\n" for caption, url in rows)):
            assert values is None or (values[1].startswith("http://e/") and "http" not in values[0])


def test_whatever_a_csv_writer_writes_is_read_back() -> None:
    random.seed(8)
    for _ in range(200):
        rows = [
            [f"http://e/{n}", "".join(random.choices('ab,"\n \r', k=random.randint(1, 9))).strip("\r\n") + "x", str(n)]
            for n in range(8)
        ]
        out = io.StringIO()
        csv.writer(out).writerows([["u", "c", "n"], *rows])
        assert read(out.getvalue()) == rows


def test_many_open_quotes_take_linear_time() -> None:
    text = "u,c\n" + 'http://e/1,"open\n' * 40_000 + 'http://e/1,"open\n' + "http://e/1,words\n" * 40_000
    started_s = time.perf_counter()
    values = read(text)
    assert len(values) == 80_001
    assert values[-1] == ["http://e/1", "words"]
    assert time.perf_counter() - started_s < 5


@pytest.mark.parametrize("text", ["x" * 200_000, 'a "word"\n' * 50_000])
def test_a_long_text_is_read(text: str) -> None:
    out = io.StringIO()
    csv.writer(out).writerows([["id", "text"], [1, text], [2, "short"]])
    assert read(out.getvalue()) == [["1", text], ["2", "short"]]
