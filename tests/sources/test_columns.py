"""The columns of LAION, DataComp and of mapped files."""

from __future__ import annotations

import json
import re

import pyarrow as pa
import pytest

from mmdata.errors import UserError
from mmdata.sources.columns import distinct


def test_laion_columns_go_where_they_belong(inbox):
    inbox.parquet(
        "a.parquet",
        {
            "URL": ["http://e/1", "http://e/2"],
            "TEXT": ["eins", "zwei"],
            "WIDTH": pa.array([640, None], pa.int32()),
            "similarity": [0.31, float("nan")],
            "punsafe": pa.array([0.1, None], pa.float32()),
            "hash": [2**62, -5],
            "LANGUAGE": ["de", None],
        },
    )
    first, second = inbox.rows()
    assert (first["lang"], second["lang"]) == ("de", None)
    assert json.loads(first["extra"]) == {"WIDTH": 640, "similarity": 0.31, "punsafe": 0.1, "hash": 2**62}
    assert json.loads(second["extra"]) == {"WIDTH": None, "similarity": None, "punsafe": None, "hash": -5}


def test_laion_400m_keeps_its_sample_id_licence_and_nsfw(inbox):
    inbox.parquet(
        "a.parquet",
        {"SAMPLE_ID": [7.0], "URL": ["http://e/1"], "TEXT": ["x"], "LICENSE": ["?"], "NSFW": ["UNLIKELY"]},
    )
    (row,) = inbox.rows()
    assert json.loads(row["extra"]) == {"SAMPLE_ID": 7.0, "LICENSE": "?", "NSFW": "UNLIKELY"}
    assert row["lang"] is None


def test_datacomp_columns_give_the_expected_hash(inbox):
    good, bad = "AB" * 32, "not a hash"
    inbox.parquet(
        "a.parquet",
        {
            "uid": ["u1", "u2", "u3"],
            "url": ["http://e/1", "http://e/2", "http://e/3"],
            "text": ["x", "y", "z"],
            "original_width": [10, 20, 30],
            "clip_l14_similarity_score": [0.2, 0.3, float("inf")],
            "face_bboxes": [[[0.1, 0.2, 0.3, 0.4]], [], None],
            "sha256": [good, bad, None],
        },
    )
    first, second, third = inbox.rows()
    assert first["expected_sha256"] == good.lower()
    assert second["problem"] == "bad_sha256"
    assert third["expected_sha256"] is None
    assert third["problem"] is None
    extra = json.loads(first["extra"])
    assert extra["uid"] == "u1"
    assert extra["face_bboxes"] == [[0.1, 0.2, 0.3, 0.4]]
    assert json.loads(third["extra"])["clip_l14_similarity_score"] is None


def test_a_mapping_reads_any_columns(inbox):
    inbox.source = {"kind": "pairs", "columns": {"url": "src", "caption": "alt", "lang": "l"}}
    inbox.text("a.csv", "id,src,alt,l\n1,http://e/1,eins,de\n")
    inbox.text("b.jsonl", '{"src": "http://e/2", "alt": "two", "l": "en", "more": {"a": [1, NaN]}}\n')
    first, second = inbox.rows()
    assert (first["caption"], first["lang"], json.loads(first["extra"])) == ("eins", "de", {"id": "1"})
    assert (second["caption"], second["lang"], json.loads(second["extra"])) == ("two", "en", {"more": {"a": [1, None]}})


def test_a_mapping_to_absent_columns_lists_those_found(inbox):
    inbox.source = {"kind": "pairs", "columns": {"url": "src", "caption": "alt"}}
    inbox.text("a.csv", "id,link,alt\n1,http://e/1,eins\n")
    with pytest.raises(UserError, match="no column src among its columns: id, link, alt"):
        inbox.look()


@pytest.mark.parametrize(
    "header", ["Url,Text", "url,TEXT", "URL,CAPTION", " url , caption ", "Text,Url", "caption,URL,TEXT_de"]
)
def test_laion_columns_are_known_in_whatever_case(inbox, header):
    names = header.split(",")
    value = dict(zip(map(str.lower, map(str.strip, names)), names, strict=True))
    cells = {name: "http://e/1" if name.strip().lower() == "url" else "words" for name in value.values()}
    inbox.text("a.csv", f"{header}\n{','.join(cells[name] for name in names)}\n")
    (row,) = inbox.rows()
    assert (row["url"], row["caption"], row["problem"]) == ("http://e/1", "words", None)


def test_a_mapping_takes_another_case_only_if_that_leaves_no_doubt(inbox):
    inbox.source = {"kind": "pairs", "columns": {"url": "url", "caption": "caption"}}
    inbox.text("a.csv", "Url,CAPTION,n\nhttp://e/1,one,1\n")
    inbox.text("b.csv", "url,caption,Caption\nhttp://e/2,two,zwei\n")
    inbox.text("c.csv", "url,CAPTION,Caption\nhttp://e/3,three,drei\n")
    first, second = inbox.rows()
    assert (first["caption"], first["extra"], second["caption"]) == ("one", '{"n": "1"}', "two")
    (error,) = [entry["error"] for entry in inbox.workspace.catalog().files.values() if entry["status"] == "unreadable"]
    assert "no column caption among its columns: url, CAPTION, Caption" in error


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("a cat\thttp://e/1\na dog\thttp://e/2\n", "header: [caption, url]"),
        ("url;caption\nhttp://e/1;a\n", "separated by semicolons"),
    ],
)
def test_what_is_no_header_gets_a_remedy_that_helps(inbox, text, remedy):
    inbox.source = {"kind": "pairs", "columns": {"url": "url", "caption": "caption"}}
    inbox.text("a.tsv" if "\t" in text else "a.csv", text)
    with pytest.raises(UserError, match=re.escape(remedy)):
        inbox.look()
    inbox.source["header"] = ["caption", "url"]
    if "\t" in text:
        assert [row["caption"] for row in inbox.rows()] == ["a cat", "a dog"]


def test_tabs_in_a_csv_are_named(inbox):
    inbox.text("a.csv", "url\tcaption\nhttp://e/1\ta\n")
    with pytest.raises(UserError, match=r"separated by tabs; rename it to \.tsv"):
        inbox.look()


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_mapped_scores_and_chosen_columns_are_what_extra_holds(inbox, name):
    inbox.source = {"kind": "pairs", "columns": {"url": "u", "caption": "c", "punsafe": "nsfw"}, "keep_columns": ["b"]}
    values = {"u": "http://e/1", "c": "words", "nsfw": "0.5", "a": "x", "b": "y"}
    if name.endswith("parquet"):
        inbox.parquet(name, {key: [value] for key, value in values.items()})
    elif name.endswith("jsonl"):
        inbox.text(name, json.dumps(values))
    else:
        inbox.text(name, ",".join(values) + "\n" + ",".join(values.values()) + "\n")
    (row,) = inbox.rows()
    assert json.loads(row["extra"]) == {"b": "y", "punsafe": "0.5"}
    inbox.source["keep_columns"] = []
    (row,) = inbox.rows()
    assert json.loads(row["extra"]) == {"punsafe": "0.5"}


def test_a_kept_column_that_is_not_there_is_named(inbox):
    inbox.source = {"keep_columns": ["similarty"]}
    inbox.pairs("a.parquet", 1)
    with pytest.raises(UserError, match=r"no column similarty.*`keep_columns` of source web"):
        inbox.look()


@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "a.jsonl"])
def test_folders_of_the_path_are_columns(inbox, name):
    inbox.source = {
        "kind": "pairs",
        "files": str(inbox.folder / "inbox/**/a.*"),
        "columns": {"url": "u", "caption": "c", "lang": "lang"},
    }
    for lang in ("en", "de"):
        (inbox.path(f"lang={lang}") / "day=1").mkdir(parents=True)
        values = {"u": f"http://e/{lang}", "c": "words"}
        write = {
            "a.csv": lambda place: inbox.text(place, "u,c\n" + ",".join(values.values()) + "\n"),  # noqa: B023
            "a.jsonl": lambda place: inbox.text(place, json.dumps(values)),  # noqa: B023
            "a.parquet": lambda place: inbox.parquet(place, {key: [value] for key, value in values.items()}),  # noqa: B023
        }[name]
        write(f"lang={lang}/day=1/{name}")
    rows = inbox.rows()
    assert [(row["url"], row["lang"], json.loads(row["extra"])) for row in rows] == [
        ("http://e/de", "de", {"day": "1"}),
        ("http://e/en", "en", {"day": "1"}),
    ]


def test_names_that_repeat_get_a_number() -> None:
    assert distinct(["a", "b", "a", "a.1", "a"]) == ["a", "b", "a.2", "a.1", "a.3"]


def test_a_column_that_a_rule_reads_is_kept_whatever_keep_columns_says(inbox):
    inbox.source = {"keep_columns": ["hash"], "filter": {"min": {"Similarity": 0.2}, "min_side": 10}}
    columns = {"URL": ["http://e/1"], "TEXT": ["x"], "WIDTH": [20], "HEIGHT": [30], "similarity": [0.3], "hash": [1]}
    inbox.parquet("a.parquet", columns | {"other": [2]})
    (row,) = inbox.rows()
    assert json.loads(row["extra"]) == {"WIDTH": 20, "HEIGHT": 30, "similarity": 0.3, "hash": 1}


def test_a_rule_on_a_column_that_no_file_has_names_the_nearest_and_the_remedies_help(inbox):
    inbox.parquet("a.parquet", {"URL": ["http://e/1"], "TEXT": ["x"], "similarity": [0.3]})
    inbox.source = {"filter": {"min": {"simlarity": 0.2}}}
    message = r"no column simlarity .*did you mean similarity\? correct `filter` of source web.*missing: keep"
    with pytest.raises(UserError, match=message):
        inbox.look()
    inbox.source = {"filter": {"min": {"simlarity": 0.2}, "missing": "keep"}}
    inbox.look()
    inbox.source = {"filter": {"min": {"similarity": 0.2}}}
    assert inbox.look().counts["files_ok"] == 1


def test_rules_do_not_change_the_rows(inbox):
    inbox.parquet("a.parquet", {"URL": ["http://e/1"], "TEXT": ["x"], "similarity": [0.3]})
    before = inbox.rows()
    inbox.source = {"filter": {"min": {"similarity": 0.9}, "languages": ["en"]}}
    assert inbox.rows() == before
