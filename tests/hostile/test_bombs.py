"""Small files that would like to be large ones: bounded memory, and an error or a counted row."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from mmdata.config import Source
from mmdata.config.load import load_corpus
from mmdata.errors import UserError
from mmdata.sources.source_files import look_into
from training.config_file import load_train_config

ROOT = Path(__file__).resolve().parents[2]

YAML = {
    "aliases": "a: &a [x, x]\nb: &b [*a, *a]\nworkspace: *b\n",
    "deep lists": "workspace: " + "[" * 5000 + "]" * 5000,
    "deep mappings": "workspace: " + "{a: " * 5000 + "}" * 5000,
    "open brackets": "[" * 500_000,
    "huge number": "seed: " + "9" * 900_000,
    "huge hexadecimal number": "seed: 0x" + "f" * 900_000,
    "number to the base of sixty": "seed: 1" + ":59" * 3000,
    "no such day": "seed: 2026-99-99",
    "python object": "workspace: !!python/object/apply:os.system ['touch owned']",
    "python name": "workspace: !!python/name:os.system",
    "python module": "workspace: !!python/module:os",
    "own tag": "workspace: !secret x",
    "key that is a list": "? [a, b]\n: c",
    "several documents": "workspace: w\n---\nworkspace: v\n",
    "other encoding": "workspace: \u00e9".encode("latin-1").decode("latin-1") + "\x00",
    "larger than a megabyte": "# " + "x" * 2_000_000,
    "long key": "k" * 900_000 + ": 1",
    "long value": "workspace: w\nsources: [{name: '" + "n" * 500_000 + "', kind: laion, files: x}]",
    "not a number": "workspace: w\nsources: []\nseed: .nan",
}

TOML = {
    "deep lists": "a = " + "[" * 5000 + "]" * 5000,
    "deep tables": "a = " + "{a = " * 3000 + "1" + "}" * 3000,
    "huge number": "seed = " + "9" * 100_000,
    "no such day": "seed = 2026-99-99",
    "not UTF-8": "seed = '\udcff'",
    "long key": "k" * 500_000 + " = 1",
}


@pytest.mark.parametrize("name", YAML)
def test_a_corpus_file_that_is_a_bomb_is_an_error_of_one_screen(tmp_path: Path, name: str) -> None:
    path = tmp_path / "corpus.yaml"
    path.write_bytes(YAML[name].encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match=r"corpus\.yaml") as raised:
        load_corpus(path)
    assert name == "long key" or len(str(raised.value)) < 3000
    assert not Path("owned").exists()


@pytest.mark.parametrize("name", TOML)
def test_a_train_file_that_is_a_bomb_is_an_error(tmp_path: Path, name: str) -> None:
    path = tmp_path / "train.toml"
    path.write_bytes(TOML[name].encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match=r"train\.toml"):
        load_train_config("tiny", path)


@pytest.mark.parametrize("text", ["[" * 5000, "9" * 100_000, "{a=" * 3000])
def test_a_setting_of_the_command_line_that_is_a_bomb_is_an_error(text: str) -> None:
    with pytest.raises(UserError):
        load_train_config("tiny", None, [f"seed={text}"])


def dictionary_bomb(path: Path) -> int:
    """50 GB of text in some kilobytes: one value of a megabyte, fifty thousand times."""
    url = pa.DictionaryArray.from_arrays(pa.array([0] * 50_000, pa.int32()), ["https://h/" + "a" * 1_000_000])
    pq.write_table(pa.table({"url": url, "caption": ["x"] * 50_000}), path)
    return 2000


def nested_dictionary_bomb(path: Path) -> int:
    value = pa.DictionaryArray.from_arrays(pa.array([0] * 50_000, pa.int32()), ["a" * 1_000_000])
    lists = pa.ListArray.from_arrays(pa.array(range(50_001), pa.int32()), value)
    urls = [f"https://h/{n}" for n in range(50_000)]
    pq.write_table(pa.table({"url": urls, "caption": ["x"] * 50_000, "tags": lists}), path)
    return 2000


def deep_schema(path: Path) -> int:
    column: pa.Array = pa.array([1])
    for number in range(150):
        column = pa.StructArray.from_arrays([column], [f"a{number}"])
    pq.write_table(pa.table({"url": ["https://h/a"], "caption": ["x"], "deep": column}), path)
    return 0


def many_columns(path: Path) -> int:
    pq.write_table(pa.table({"url": ["https://h/a"], "caption": ["x"], **{f"c{n}": ["v"] for n in range(5000)}}), path)
    return 1


def long_text(path: Path) -> int:
    pq.write_table(pa.table({"url": ["https://h/" + "a" * 50_000_000], "caption": ["x"]}), path, compression="zstd")
    return 1


def long_line(path: Path) -> int:
    """A line of 300 MB in a file of JSON Lines, between two honest ones."""
    with path.open("wb") as file:
        file.write(b'{"url": "https://h/a", "caption": "one"}\n{"url": "')
        for _ in range(300):
            file.write(b"a" * 1_000_000)
        file.write(b'"}\n{"url": "https://h/b", "caption": "two"}\n')
    return 1


def long_cell(path: Path) -> int:
    with path.open("wb") as file:
        file.write(b'url,caption\nhttps://h/a,one\nhttps://h/b,"')
        for _ in range(300):
            file.write(b"a" * 1_000_000)
        file.write(b'"\nhttps://h/c,three\n')
    return 1


def deep_json(path: Path) -> int:
    path.write_text('{"url": "https://h/a", "caption": "one"}\n' + "[" * 100_000 + "\n" + '{"a":' * 100_000 + "\n")
    return 3


BOMBS: dict[str, tuple[str, Callable[[Path], int]]] = {
    "dictionary": ("parquet", dictionary_bomb),
    "dictionary in lists": ("parquet", nested_dictionary_bomb),
    "deep schema": ("parquet", deep_schema),
    "many columns": ("parquet", many_columns),
    "long text": ("parquet", long_text),
    "long line": ("jsonl", long_line),
    "long cell": ("csv", long_cell),
    "deep JSON": ("jsonl", deep_json),
}

READ = """
import json, resource, sys
from collections import Counter
from upath import UPath
from mmdata.config import Source
from mmdata.errors import DataError
from mmdata.sources.source_files import look_into, read_batches
path, most = UPath(sys.argv[1]), int(sys.argv[2])
source = Source(name="web", kind="pairs", files=str(path), columns={"url": "url", "caption": "caption"})
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (3 << 30), used + (3 << 30)))
seen = look_into(source, path, path.stat().st_size)
problems, rows, error = Counter(), 0, None
if seen.status == "ok":
    try:
        for batch in read_batches(source, path, 0, min(seen.rows, most)):
            rows += len(batch.urls)
            problems.update(str(one) for one in batch.problems)
    except DataError as caught:
        error = str(caught)
# Not ru_maxrss: a process starts with its parent's
peak = int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
print(json.dumps({"status": seen.status, "error": seen.error or error, "of": seen.rows, "rows": rows, "kib": peak}))
"""


@pytest.mark.parametrize("name", BOMBS)
def test_a_source_that_is_a_bomb_is_read_in_bounded_memory(tmp_path: Path, name: str) -> None:
    ending, make = BOMBS[name]
    path = tmp_path / f"bomb.{ending}"
    rows = make(path)
    command = [sys.executable, "-c", READ, str(path), str(rows or 1)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False, cwd=ROOT)
    assert ended.returncode == 0, ended.stderr[-2000:]
    found = json.loads(ended.stdout.splitlines()[-1])
    assert found["kib"] < 2_000_000
    if rows:
        assert (found["status"], found["error"]) == ("ok", None)
        assert found["rows"] == min(rows, found["of"])
    else:
        assert found["status"] == "unreadable"
        assert path.name in found["error"]


def test_a_footer_that_names_more_rows_than_bytes_can_hold_is_unreadable(tmp_path: Path) -> None:
    """Each would become a row, a slice and a part."""
    path = tmp_path / "claims.parquet"
    pq.write_table(
        pa.table({"url": pa.nulls(40_000_000, pa.string()), "caption": pa.nulls(40_000_000, pa.string())}), path
    )
    assert path.stat().st_size < 400_000
    source = Source(name="web", kind="pairs", files=str(path), columns={"url": "url", "caption": "caption"})
    seen = look_into(source, UPath(path), path.stat().st_size)
    assert seen.status == "unreadable"
    assert "claims.parquet: says that it has 40,000,000 rows" in str(seen.error)


def test_a_table_whose_dictionary_is_honest_is_read_in_whole_batches(tmp_path: Path) -> None:
    from mmdata.sources.batches import BATCH_ROWS
    from mmdata.sources.source_files import read_batches

    path = tmp_path / "honest.parquet"
    pq.write_table(pa.table({"url": [f"https://h/{n % 50}" for n in range(20_000)], "caption": ["a b"] * 20_000}), path)
    source = Source(name="web", kind="pairs", files=str(path), columns={"url": "url", "caption": "caption"})
    sizes = [len(batch.urls) for batch in read_batches(source, UPath(path), 0, 20_000)]
    assert Counter(sizes)[BATCH_ROWS] == 2
    assert sum(sizes) == 20_000


COUNTS = {"bombs: YAML and TOML": len(YAML) + len(TOML) + 3, "bombs: tables": len(BOMBS) + 1}
