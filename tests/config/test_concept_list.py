"""Concept lists as files: in the forms in which they are published, or refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmdata.config.concept_list import Concepts, read_concept_lists, read_concepts
from mmdata.errors import UserError

NAMES = ["cat", "dog", "猫", "1,000 metres"]


@pytest.mark.parametrize(
    "content",
    [
        "# animals\ncat\n\n  dog \ncat\n猫\n1,000 metres\n",
        "\ufeffcat\r\ndog\r\n猫\r\n1,000 metres\r\n",
        json.dumps(NAMES),
        json.dumps([*NAMES, "cat", " "], ensure_ascii=False, indent=1),
        json.dumps({name: 7.0 * place for place, name in enumerate(NAMES)}),
        json.dumps({"en": ["cat", "dog"], "zh": ["猫", "cat"], "xx": ["1,000 metres"]}),
    ],
    ids=["lines", "lines of Windows", "MetaCLIP's list", "a list on many lines", "counts", "a list a language"],
)
def test_published_forms_are_read(tmp_path: Path, content: str) -> None:
    path = tmp_path / "metadata.json"
    path.write_text(content, encoding="utf-8", newline="")
    assert read_concepts(str(path)) == NAMES


def test_half_a_million_concepts_on_one_line_are_as_many(tmp_path: Path) -> None:
    path = tmp_path / "metadata.json"
    path.write_text(json.dumps([f"concept {number}" for number in range(500_000)]))
    assert len(read_concepts(str(path))) == 500_000


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.txt", b"# nothing\n", "holds no concept"),
        ("a.txt", b"\xff\xfe", "cannot be read"),
        ("a.json", b"[]", "holds no concept"),
        ("a.json", b'["cat", "dog"', "begins as JSON does, but is not JSON"),
        ("a.json", b'["cat", 7]', "element 1 is no text, but '7'"),
        ("a.json", b'[{"name": "cat"}]', "element 0 is no text"),
        ("a.json", b'{"cat": {"count": 7}}', "key 'cat' has no count"),
        ("a.json", b'{"en": ["cat", null]}', "element 1 is no text"),
        ("a.txt", b"cat\t12\ndog\t7\n", "looks like a table with counts"),
        ("a.txt", b"name,count\ncat,12\n", "looks like a table with counts"),
        ("a.txt", b'"cat",\n"dog",\n', "looks like a list of quoted texts"),
        ("a.csv", b"concept\ncat\n", "is a table by its name"),
        ("a.txt", b"cat, dog, " * 100, "has a concept of 999 characters"),
    ],
)
def test_other_forms_are_refused_with_a_remedy(tmp_path: Path, name: str, content: bytes, problem: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError) as raised:
        read_concepts(str(path))
    assert f"select.balance.concepts: {path} " in str(raised.value)
    assert problem in str(raised.value)
    assert "Remedy: write one concept a line, or a JSON list of texts" in str(raised.value)


def test_an_absent_list_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.txt cannot be read"):
        read_concepts(str(tmp_path / "absent.txt"))


def test_a_list_is_read_without_comments_blanks_and_doubles(tmp_path: Path) -> None:
    path = tmp_path / "concepts.txt"
    path.write_text("# animals\ncat\n\n dog \ncat\n猫\n", encoding="utf-8")
    assert read_concepts(str(path)) == ["cat", "dog", "猫"]
    path.write_text("# nothing\n")
    with pytest.raises(UserError, match="holds no concept"):
        read_concepts(str(path))


def test_lists_of_languages_are_one_after_another_and_their_concepts_are_told_apart(tmp_path: Path) -> None:
    for name, text in (("zh", "猫\n"), ("en", "cat\nchat\n"), ("fr", "chat\n")):
        (tmp_path / name).write_text(text, encoding="utf-8")
    read = read_concept_lists({name: str(tmp_path / name) for name in ("zh", "en", "fr")})
    assert read == Concepts(["cat", "chat", "chat", "猫"], {"en": range(2), "fr": range(2, 3), "zh": range(3, 4)})
    assert read.names == ["en:cat", "en:chat", "fr:chat", "zh:猫"]
    assert read.content == {"en": ["cat", "chat"], "fr": ["chat"], "zh": ["猫"]}
    one = read_concept_lists(str(tmp_path / "en"))
    assert one.names == one.content == ["cat", "chat"]
