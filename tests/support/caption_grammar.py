"""Writes caption files of many spellings, sound and broken, by a grammar; says which words a reader must find."""

from __future__ import annotations

import html
import io
import json
import random
from dataclasses import dataclass
from typing import Any

SAFE_TEXTS = [
    "a < b",
    "c > d and e < f",
    "I <3 it",
    "press --> now",
    "{curly}",
    "C# & Co.",
    "5'9\" tall",
    "100 %",
    "->",
]
"""Texts that look like markup and are none."""

TAGS = [
    ('<font color="#ffff00">', "</font>"),
    ("<FONT color=red size='3'>", "</FONT>"),
    ("<v.loud Mary O'Neil>", "</v>"),
    ("<v Renée>", ""),
    ("<c.yellow.bg_blue>", "</c>"),
    ("<lang en-GB>", "</lang>"),
    ("<i>", "</i>"),
    ("<B><u>", "</u></B>"),
    ("<ruby>", "<rt></rt></ruby>"),
    ("{\\an8}", ""),
    ("{\\pos(10,20)\\fs12}", ""),
    ("<00:00:01.000>", "<01:02.5>"),
    ("<span class='x'>", "</span>"),
]
HEADS = [
    "WEBVTT",
    "WEBVTT - title",
    "WEBVTT\nKind: captions\nLanguage: en",
    "WEBVTT\nX-TIMESTAMP-MAP=LOCAL:00:00:00.000",
]
BLOCKS = ["NOTE", "NOTE a comment\nof two lines", "STYLE\n::cue { color: red }", "REGION\nid:fred\nwidth:40%"]
SETTINGS = ["", " align:start position:0%", " line:0", "  X1:10 X2:20 Y1:30 Y2:40"]
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]
BROKEN_TIMES = [
    *("-00:00:02,000 --> 00:00:06,000", "00:00:01:12 --> 00:00:03:04", "00:00:01,000 --> soon", "--> 00:00:03,000"),
    *("00:00:09,000 --> 00:00:01,000", "99999999999:00:00 --> 99999999999:00:01", "??:?? --> 00:00:03,000"),
]
VALUES: list[Any] = [
    *(
        None,
        True,
        -1,
        0,
        -0.0,
        1e300,
        10**400,
        float("nan"),
        float("inf"),
        "",
        "nan",
        "None",
        "soon",
        "-0:00:01",
        "1:2:3:4",
    ),
    *(
        "1e999",
        [],
        [[]],
        {},
        {"a": 1},
        "\ud83d",
        "\x00",
        "\u200b",
        "&#" + "9" * 5_000 + ";",
        "<font ",
        "{\\",
        "&#xD800;",
    ),
    *(
        "\ufffd",
        "\u202egnp",
        "x" * 20_000,
        "&amp;#" + "0" * 5_000 + "65;",
        "9" * 5_000,
        "١٢",
        "1_0",
        "0x1",
        "+1",
        "<" * 999,
    ),
]
"""What a list of times or texts may hold."""


@dataclass
class CaptionFile:
    """A file of one video.

    Args:
        words: the words of its sound captions, in order; None: the file is broken, and some may be lost.
        lost: how many captions must be counted as lost.
    """

    suffix: str
    data: bytes
    words: list[str] | None
    lost: int = 0


def any_file(draw: random.Random) -> CaptionFile:
    """One file of any kind."""
    return draw.choice([cue_file, cue_file, csv_file, broken_file])(draw)


def cue_file(draw: random.Random) -> CaptionFile:
    """A sound WebVTT or SubRip file, some of whose cues have impossible times."""
    suffix = draw.choice([".vtt", ".srt"])
    is_named = suffix == ".vtt" and draw.random() < 0.8
    lines = [draw.choice(HEADS), ""] if is_named else []
    words: list[str] = []
    lost = 0
    for number in range(draw.randrange(1, 12)):
        if is_named and draw.random() < 0.2:
            lines += [draw.choice(BLOCKS), ""]
        if draw.random() < 0.8:
            lines.append(str(number + 1) if suffix == ".srt" or draw.random() < 0.5 else f"cue {number}")
            lines[-1] = lines[-1] if is_named or suffix == ".srt" else str(number + 1)
        text, said = _text(draw, number)
        if draw.random() < 0.15:
            lines.append(draw.choice(BROKEN_TIMES))
            lost += 1
        else:
            start, end = _time(draw, 5 * number), _time(draw, 5 * number + draw.randrange(2, 9))
            lines.append(f"{start}{draw.choice([' --> ', '-->', '  -->  '])}{end}{draw.choice(SETTINGS)}")
            words += said
        lines += [*text, ""]
    ending = draw.choice(["\n", "\r\n", "\r", "\r\r\n"])
    return CaptionFile(suffix, "\n".join(lines).replace("\n", ending).encode(draw.choice(ENCODINGS)), words, lost)


def csv_file(draw: random.Random) -> CaptionFile:
    """A sound CSV, some of whose rows have impossible times or no text."""
    import csv

    out = io.StringIO()
    columns = draw.sample(["start", "end", "text", "", "confidence"], 5)
    writer = csv.writer(
        out, lineterminator=draw.choice(["\n", "\r\n"]), quoting=draw.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
    )
    writer.writerow([draw.choice([name, name.upper(), f" {name} "]) for name in columns])
    words: list[str] = []
    lost = 0
    for number in range(draw.randrange(1, 12)):
        text, said = _text(draw, number)
        row = {
            "start": str(5 * number),
            "end": f"{5 * number + 4}.0",
            "text": "\n".join(text),
            "": "1",
            "confidence": "0.5",
        }
        if draw.random() < 0.15:
            row[draw.choice(["start", "end"])] = draw.choice(
                ["", "nan", "soon", "-0:00:01", "-3", "1e99", "0:00:01:02"]
            )
            lost += 1
        elif draw.random() < 0.15:
            row["text"] = draw.choice(["", "nan", "NaN", "None", "<i></i>", "\u200b"])
            lost += 1
        else:
            words += said
        writer.writerow(row[name] for name in columns)
    return CaptionFile(".csv", out.getvalue().encode(draw.choice(ENCODINGS)), words, lost)


def broken_file(draw: random.Random) -> CaptionFile:
    """A file with something that no reader can make whole."""
    whole = draw.choice([cue_file, csv_file])(draw)
    data = whole.data
    kind = draw.randrange(6)
    if kind == 0:
        data = data[: draw.randrange(len(data) + 1)]
    elif kind == 1:
        at = draw.randrange(len(data) + 1)
        piece = draw.choice(
            ['"', ',"', '"\n', "-->", "00:00:01,000 --> ", "<", "{\\", "&#", "\x00", "\n\n", "start,end,text\n"]
        )
        data = data[:at] + piece.encode() + data[at:]
    elif kind == 2:
        data = (
            data.decode("utf-8", "replace").encode(draw.choice(["cp1252", "cp1251", "utf-16-be"]), "replace")
            + b"\xe9\xe8"
        )
    elif kind == 3:
        pieces = data.split(b"\n")
        draw.shuffle(pieces)
        data = b"\n".join(pieces)
    elif kind == 4:
        data = draw.choice([b"\xff\xfe", b"\xef\xbb\xbf", b"\x00", b"\xff\xfe\x00\x00"]) + data
    else:
        data = bytes(draw.randrange(256) for _ in range(draw.randrange(300)))
    return CaptionFile(draw.choice([whole.suffix, ".csv", ".vtt"]), data, None)


def json_entry(draw: random.Random) -> bytes:
    """An entry of HowTo100M's JSON, whose lists may hold anything."""
    count = draw.randrange(8)

    def values(good: Any) -> list[Any]:
        length = count if draw.random() < 0.9 else draw.randrange(8)
        return [draw.choice(VALUES) if draw.random() < 0.3 else good(number) for number in range(length)]

    starts, ends = values(lambda n: 5 * n), values(lambda n: draw.choice([5 * n + 4, f"{5 * n + 4}.5", 5.5 * n]))
    entry: dict[str, Any] = {"start": starts, "end": ends, "text": values(lambda n: " ".join(_text(draw, n)[0]))}
    if draw.random() < 0.1:
        entry[draw.choice(list(entry))] = draw.choice(VALUES)
    if draw.random() < 0.1:
        del entry[draw.choice(list(entry))]
    text = json.dumps(entry, ensure_ascii=draw.random() < 0.5)
    if draw.random() < 0.1:
        text = text[: draw.randrange(len(text))]
    return text.encode("utf-8", "surrogatepass")


def _text(draw: random.Random, number: int) -> tuple[list[str], list[str]]:
    """The lines of one caption as they are written, and the words that must come out."""
    lines, words = [], []
    for line in range(draw.choice([1, 1, 2, 3])):
        said = f"w{number}.{line}a w{number}.{line}b {draw.choice(['', 'né', '猫', draw.choice(SAFE_TEXTS)])}".split()
        written = " ".join(said)
        if draw.random() < 0.2:
            written = html.escape(written)
        opened, closed = draw.choice(TAGS) if draw.random() < 0.5 else ("", "")
        lines += [f"{opened}{written}{closed}", *draw.choice([[], [], [], [""], ["", ""]])]
        words += said
    while not lines[-1]:
        lines.pop()
    return lines, words


def _time(draw: random.Random, seconds: int) -> str:
    point = draw.choice([",", "."])
    fraction = draw.choice(["", f"{point}5", f"{point}25", f"{point}000", f"{point}999"])
    if seconds < 3600 and draw.random() < 0.3:
        return f"{seconds // 60:02d}:{seconds % 60:02d}{fraction}"
    hours = draw.choice([f"{seconds // 3600:02d}", f"{seconds // 3600}"])
    return f"{hours}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{fraction}"
