"""Writes metadata files whose rows hold anything, by a grammar: Parquet, CSV, TSV and JSON Lines of every kind."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.support.caption_grammar import VALUES, json_entry
from tests.support.hostile_inputs import PRIVATE_HOSTS, REFUSED_URLS, TEXTS

NAMES = [
    "",
    "captions",
    "video_id",
    "question",
    "answer",
    "punsafe",
    "NSFW",
    "LICENSE",
    "sha256",
    "a.b",
    "$",
    "猫",
    "\u202e",
]
"""Names of further columns: some that a stage looks for, and some that break a path or a display."""

COLUMNS: dict[str, dict[str, str]] = {
    "pairs": {"url": "u", "caption": "c", "lang": "l", "expected_sha256": "h"},
    "video": {"url": "u", "caption": "c", "start_s": "s", "end_s": "e"},
    "audio": {"url": "u", "caption": "c", "start_s": "s", "end_s": "e", "lang": "l"},
    "text": {"caption": "c", "lang": "l"},
}
SUFFIXES = [".jsonl", ".csv", ".tsv", ".parquet", ".ndjson"]
INDEX_COLUMNS = "video_id,category_1,category_2,rank,task_id"


def write_sources(draw: random.Random, folder: Path, rows: int, good_url: Callable[[int], str]) -> list[dict[str, Any]]:
    """Files of `rows` rows of each kind in a folder; their sections of `sources` in corpus.yaml.

    Args:
        good_url: the URL of a picture by its number.
    """
    sources: list[dict[str, Any]] = []
    for kind, columns in COLUMNS.items():
        records = [_record(draw, number, columns, good_url) for number in range(rows)]
        suffix = draw.choice(SUFFIXES)
        _write(folder / f"{kind}{suffix}", records)
        sources.append({"name": kind, "kind": kind, "files": str(folder / f"{kind}{suffix}"), "columns": columns})
    ids = [draw.choice([f"video{number:06d}", "../x", "", "a b", "-_-"]) for number in range(rows)]
    (folder / "index.csv").write_text("\n".join([INDEX_COLUMNS, *(f"{video_id},Food,b,1,2" for video_id in ids)]))
    entries = b",".join(json.dumps(video_id).encode() + b": " + _balanced(draw) for video_id in ids)
    (folder / "raw.json").write_bytes(b"{" + entries + b"}")
    howto = {
        "name": "howto",
        "kind": "howto100m",
        "files": str(folder / "index.csv"),
        "captions": str(folder / "raw.json"),
    }
    # videos are looked for at a port where nobody listens
    return [*sources, {**howto, "fetch_from": "http://127.0.0.1:9/{video_id}.mp4"}]


def _balanced(draw: random.Random) -> bytes:
    """An entry that ends; one that does not makes the whole file unreadable, which is right."""
    while True:
        entry = json_entry(draw)
        if entry.endswith(b"}") and entry.count(b"{") == 1 and entry.count(b'"') % 2 == 0:
            return entry


def _record(
    draw: random.Random, number: int, columns: dict[str, str], good_url: Callable[[int], str]
) -> dict[str, Any]:
    """One row: each mapped column holds something good, something hostile, or anything; and further columns."""
    record: dict[str, Any] = {}
    for name, column in columns.items():
        record[column] = _value(draw, name, number, good_url)
    for name in draw.sample(NAMES, draw.randrange(4)):
        record[name] = draw.choice([*VALUES, *TEXTS, _nested(draw)])
    return record


def _value(draw: random.Random, name: str, number: int, good_url: Callable[[int], str]) -> Any:
    if draw.random() < 0.15:
        return draw.choice(VALUES)
    if name == "url":
        hostile = [
            f"http://{draw.choice(PRIVATE_HOSTS)}/x.jpg",
            draw.choice([*REFUSED_URLS]),
            good_url(number) + draw.choice(TEXTS),
        ]
        return good_url(number) if draw.random() < 0.5 else draw.choice(hostile)
    if name == "caption":
        return (
            f"number {number} of many" if draw.random() < 0.4 else f"{draw.choice(TEXTS)} {draw.choice(TEXTS)} {number}"
        )
    if name == "lang":
        return draw.choice(["en", "zh", "xx-YY", "x" * 999])
    if name == "expected_sha256":
        return draw.choice([None, None, "0" * 64, "f" * 63, "G" * 64])
    return {"start_s": draw.choice([number, f"0:00:{number % 60:02d}.5"]), "end_s": number + draw.choice([3, -3, 1e9])}[
        name
    ]


def _nested(draw: random.Random) -> Any:
    value: Any = draw.choice(["deep", 1, None, [], {}])
    for _ in range(draw.choice([1, 5, 99, 150, 400, 970])):
        value = draw.choice([[value], {"a": value}])
    return value


def _write(path: Path, records: list[dict[str, Any]]) -> None:
    names = list(dict.fromkeys(name for record in records for name in record))
    if path.suffix in (".jsonl", ".ndjson"):
        path.write_text("".join(_line(record) + "\n" for record in records), encoding="utf-8", errors="surrogatepass")
        return
    if path.suffix == ".parquet":
        columns = {name: [_cell(record.get(name)) for record in records] for name in names}
        pq.write_table(pa.table(columns), path, row_group_size=7)
        return
    table = [names, *([_cell(record.get(name)) or "" for name in names] for record in records)]
    with path.open("w", encoding="utf-8", newline="") as file:
        if path.suffix == ".csv":
            csv.writer(file).writerows(table)
        else:  # a row of TSV is a line; it knows no quotation marks
            file.writelines("\t".join(" ".join(cell.split()) for cell in row) + "\n" for row in table)


def _line(record: dict[str, Any]) -> str:
    try:
        return json.dumps(record, ensure_ascii=False)
    except RecursionError:
        return '{"u": ' + "[" * 100_000


def _cell(value: Any) -> str | None:
    """A value as text for formats that hold nothing else, without what their writers refuse."""
    if value is None:
        return None
    text = value if isinstance(value, str) else repr(value)[:5_000] if _is_flat(value) else "nested"
    return text.encode("utf-8", "replace").decode()


def _is_flat(value: Any) -> bool:
    return not isinstance(value, list | dict) and value != 10**400
