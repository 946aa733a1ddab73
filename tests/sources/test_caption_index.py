"""HowTo100M's one large JSON of captions: each entry is found where it lies, without ever holding all of them."""

from __future__ import annotations

import json
import re
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from upath import UPath

from mmdata.errors import DataError
from mmdata.sources import caption_index
from mmdata.sources.caption_index import entries, open_index
from mmdata.sources.captions import CaptionSource
from mmdata.sources.timed import Caption
from tests.sources.conftest import captions_json

json_text = st.text(st.characters(codec="utf-8"), max_size=20)
videos = st.dictionaries(json_text, st.lists(st.tuples(st.floats(0, 9), st.floats(0, 9), json_text), max_size=4))
WHOLE = json.dumps(
    {'a\\"b': captions_json((0, 1, 'say "{x}" \\')), "猫": captions_json(), "c": captions_json((2, 3, "end"))},
    ensure_ascii=False,
)


def found_in(path: UPath, chunk: int) -> dict[str, Any]:
    data = path.read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(caption_index, "CHUNK_BYTES", chunk)
        return {video: json.loads(data[at : at + length]) for video, at, length in entries(path)}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(videos, st.booleans(), st.sampled_from([None, 1, "\t"]), st.integers(1, 50))
def test_the_index_finds_what_json_finds(
    tmp_path: Path, rows_by_video: dict[str, Any], escaped: bool, indent: Any, chunk: int
) -> None:
    path = UPath(tmp_path / "captions.json")
    whole = {video: captions_json(*rows) for video, rows in rows_by_video.items()}
    path.write_text(json.dumps(whole, ensure_ascii=escaped, indent=indent), encoding="utf-8")
    assert found_in(path, chunk) == whole


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, len(WHOLE.encode()) - 1), st.integers(1, 50))
def test_a_file_that_is_cut_off_is_named_with_the_byte_at_which_it_ends(tmp_path: Path, size: int, chunk: int) -> None:
    path = UPath(tmp_path / "captions.json")
    path.write_bytes(WHOLE.encode()[:size])
    with pytest.raises(DataError, match=rf"captions\.json: byte {size}: .*Remedy"):
        found_in(path, chunk)


@pytest.mark.parametrize(
    ("text", "byte"),
    [("[]", 0), ("  text", 2), ('{"a": [1]}', 6), ('{"a" 1}', 5), ('{"a": {"b": {"c": 1}}}', 12), ("{1: {}}", 1),
     (WHOLE + "]", len(WHOLE.encode())), (WHOLE + " \n {", len(WHOLE.encode()) + 3), ('{"a": {}]', 8)],
)  # fmt: skip
@pytest.mark.parametrize("chunk", [3, 1 << 20])
def test_a_file_of_another_shape_is_named_with_the_byte_at_which_it_differs(
    tmp_path: Path, text: str, byte: int, chunk: int
) -> None:
    path = UPath(tmp_path / "captions.json")
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=f"byte {byte}:"):
        found_in(path, chunk)


def test_an_entry_that_never_ends_does_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = UPath(tmp_path / "captions.json")
    path.write_bytes(b'{"a": {"text": ["' + b"x" * 3_000_000)
    monkeypatch.setattr(caption_index, "MAX_ENTRY_BYTES", 100_000)
    monkeypatch.setattr(caption_index, "CHUNK_BYTES", 10_000)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="byte 16:"):
            list(entries(path))
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("head", ["", "\ufeff", " \r\n\t", "\ufeff\n" + " " * 100])
def test_what_stands_before_and_after_does_not_matter(tmp_path: Path, head: str) -> None:
    path = UPath(tmp_path / "captions.json")
    path.write_text(f"{head}{WHOLE}\n \n", encoding="utf-8", newline="")
    assert found_in(path, 1 << 20) == json.loads(WHOLE)


def read(tmp_path: Path, text: str | bytes, video: str = "v") -> list[Caption] | str:
    path = tmp_path / "captions.json"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return CaptionSource(str(path), UPath(tmp_path / "cache")).read([video])[video]


def test_the_last_of_two_entries_counts(tmp_path: Path) -> None:
    one, two = json.dumps(captions_json((0, 5, "old"))), json.dumps(captions_json((0, 5, "new")))
    assert read(tmp_path, f'{{"v": {one}, "w": {one}, "v": {two}}}') == [Caption(0, 5, "new")]


def test_text_that_is_no_unicode_is_known_by_a_sign(tmp_path: Path) -> None:
    half = r'{"v": {"start": [0], "end": [5], "text": ["half \ud83d of it"]}}'
    assert read(tmp_path, half) == [Caption(0, 5, "half \ufffd\ufffd\ufffd of it")]
    assert read(tmp_path, half.replace(r"\ud83d", "\xe9").encode("latin-1")) == [Caption(0, 5, "half é of it")]
    assert read(tmp_path, half.replace(r"\ud83d", "хлеб").encode("cp1251")) == "bad_encoding"
    (row,) = open_index(UPath(write(tmp_path / "k.json", r'{"\ud83d": {}}')), UPath(tmp_path)).collect().rows()
    assert row == ("?", 11, 2)


@pytest.mark.parametrize(
    "entry",
    ['{"start": [0], "end": [1, 2], "text": ["a"]}', '{"start": [0], "end": [1]}', '{"start": 0, "end": 1, "text": ""}',
     "{not json}", '{"start": [01], "end": [1], "text": ["a"]}', "{}", '{"start": [' + "[" * 100_000 + "]}"],
)  # fmt: skip
def test_an_entry_that_is_no_captions_is_told_apart_from_none(tmp_path: Path, entry: str) -> None:
    text = f'{{"v": {entry}, "n": null}}'
    assert read(tmp_path, text) == "bad_captions"
    assert read(tmp_path, text, "n") == read(tmp_path, text, "gone") == "no_captions"


def test_times_that_are_none_are_nan_and_numbers_may_be_text(tmp_path: Path) -> None:
    starts = ["null", '"1:02.5"', "true", "NaN", "9" * 400, '"soon"', "1e999"]
    entry = f'{{"start": [{", ".join(starts)}], "end": {[99] * 7}, "text": {json.dumps([1, None, *"abcde"])}}}'
    captions = read(tmp_path, f'{{"v": {entry}}}')
    assert re.sub(r"\s", "", str([one.start_s for one in captions])) == "[nan,62.5,nan,nan,nan,nan,inf]"
    assert [one.text for one in captions] == ["1", "", *"abcde"]


def test_the_index_is_sorted_made_once_and_anew_for_other_captions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, cache = (
        UPath(write(tmp_path / "k.json", json.dumps({v: captions_json() for v in "cab"}))),
        UPath(tmp_path / "cache"),
    )
    whole = open_index(path, cache).collect()
    assert whole["video_id"].to_list() == ["a", "b", "c"]
    with monkeypatch.context() as patch:
        patch.setattr(caption_index, "entries", lambda path: pytest.fail("scanned again"))
        assert open_index(path, cache).collect().equals(whole)
    write(tmp_path / "k.json", json.dumps({"d": captions_json()}))
    assert open_index(path, cache).collect()["video_id"].to_list() == ["d"]


def test_memory_does_not_grow_with_the_captions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caption_index, "CHUNK_BYTES", 1 << 16)
    said = json.dumps(captions_json(*((float(n), n + 1.0, "some words") for n in range(200))))

    def peak(count: int) -> int:
        path = tmp_path / f"{count}.json"
        with path.open("w") as file:
            file.write("{")
            file.writelines(f'{", " if n else ""}"video{n:06d}": {said}' for n in range(count))
            file.write("}")
        tracemalloc.start()
        source = CaptionSource(str(path), UPath(tmp_path / "cache"))
        assert len(source.read(["video000007", "video000001"])["video000007"]) == 200
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(10)
    assert peak(6000) < peak(300) + 2_000_000, "the captions of 6,000 videos are 40 MB"


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path
