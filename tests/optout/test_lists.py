"""Standing opt-out lists: what they name is not fetched and not released, and a list that grows fetches nothing."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmdata.config import OptOutList
from mmdata.errors import UserError
from mmdata.optout.lists import read_list
from mmdata.optout.selectors import Selector
from tests.support.published import Published, Web, caption, pairs, picture, uid
from tests.support.takedowns import CorpusOn


def test_what_a_list_names_is_never_asked_for_and_its_row_stays_with_a_reason(
    root: str, corpus_on: CorpusOn, web: Web
) -> None:
    built = corpus_on(root, optout=["lists/out.txt"])
    (built.folder / "lists").mkdir()
    (built.folder / "lists" / "out.txt").write_text(f"# one URL, one host\n{web.url(3)}\n\n127.0.0.2\n")
    built.write("a", pairs(web, range(6)) + pairs(web, range(6, 9), "127.0.0.2"))
    release = built.build()
    assert set(web.hits) == {f"/{n}.jpg" for n in (0, 1, 2, 4, 5)}
    left_out = {uid(web.url(3), caption(3)), *(uid(web.url(n, "127.0.0.2"), caption(n)) for n in (6, 7, 8))}
    assert {key for key, reason in built.reasons(release).items() if reason == "opt_out"} == left_out
    assert built.copies(release) == 9
    rows, media = built.rows("web-000000", "rows"), built.rows("web-000000", "media")
    for one in left_out:
        assert rows[one]["problem"] == "opt_out"
        assert [rows[one][name] for name in ("url", "caption", "extra")] == [None] * 3
        assert (media[one]["status"], media[one]["error"]) == ("refused", "opt_out")
    stamp = built.workspace.part_stamp("web-000000", "media")
    assert stamp is not None
    assert stamp.counts["fetchable"] == 5


@pytest.mark.parametrize("root", ["disk", pytest.param("s3", marks=pytest.mark.slow)], indirect=True)
def test_a_list_that_grows_fetches_nothing_and_scores_nothing_and_comes_to_the_same_tables(
    root: str, corpus_on: CorpusOn, web: Web, tmp_path: Path
) -> None:
    out = tmp_path / "out.txt"
    out.write_text("")
    built = corpus_on(root, optout=[str(out)])
    built.write("a", pairs(web, range(8)))
    built.write("b", pairs(web, range(8, 12)))
    first = built.build()
    hits, scored = dict(web.hits), list(built.scored)
    out.write_text(f"{web.url(2)}\n{web.url(10)}\n")
    second = built.build()
    assert second != first
    assert (dict(web.hits), built.scored) == (hits, scored)
    assert set(built.kept(first)) - set(built.kept(second)) == {uid(web.url(n), caption(n)) for n in (2, 10)}
    assert set(built.kept(second)) < set(built.kept(first))
    assert built.copies(second) == built.copies(first) == 12

    anew = Published(tmp_path / "anew", str(tmp_path / "anew" / "workspace"), web, optout=[str(out)])
    anew.write("a", pairs(web, range(8)))
    anew.write("b", pairs(web, range(8, 12)))
    anew.build()
    for part in built.parts():
        left = sorted(built.rows(part, "rows"))
        for stage in ("rows", "media", "features"):
            stamps = [one.workspace.part_stamp(part, stage) for one in (built, anew)]
            assert stamps[0] is not None
            assert stamps[1] is not None
            if stage == "features":  # a score's last digit depends on what was scored beside it
                told = [[_but_for_scores(one.rows(part, stage)[key]) for key in left] for one in (built, anew)]
                assert told[0] == told[1], "it matters when the list came"
            else:
                assert stamps[0].digest == stamps[1].digest, "it matters when the list came"
            kept = {"rows", "usable", "bad", "opt_out", "uids", "success", "refused", "fetchable", "embedded", "scored"}
            counts = [{name: n for name, n in one.counts.items() if name in kept} for one in stamps if one]
            assert counts[0] == counts[1]
            assert dict(stamps[0].reasons) == dict(stamps[1].reasons)


def _but_for_scores(row: dict[str, object]) -> dict[str, object]:
    scores = ("clip_score", "embedding", "text_embedding")
    return {name: value is None if name in scores else value for name, value in row.items()}


def test_an_unrelated_entry_changes_no_release(corpus_on: CorpusOn, web: Web, tmp_path: Path) -> None:
    out = tmp_path / "out.txt"
    out.write_text(web.url(1))
    built = corpus_on(optout=[str(out)])
    built.write("a", pairs(web, range(6)))
    first, hits = built.build(), dict(web.hits)
    out.write_text(f"{web.url(1)}\nhttps://elsewhere.example/x.jpg")
    assert built.build() == first
    assert dict(web.hits) == hits


def test_an_entry_that_is_taken_out_brings_its_row_back(corpus_on: CorpusOn, web: Web, tmp_path: Path) -> None:
    out = tmp_path / "out.txt"
    by_content = hashlib.sha256(picture(4)).hexdigest()
    out.write_text(f"{web.url(1)}\n{web.url(2)}\n{by_content}\n")
    built = corpus_on(optout=[str(out)])
    built.write("a", pairs(web, range(6)))
    assert len(built.kept(built.build())) == 3
    hits = dict(web.hits)
    out.write_text(web.url(2))
    assert set(built.kept(built.build())) == {uid(web.url(n), caption(n)) for n in (0, 1, 3, 4, 5)}
    assert {path for path in web.hits if web.hits[path] != hits.get(path)} == {"/1.jpg", "/4.jpg"}


def test_a_file_is_refused_by_its_sha256_wherever_it_comes_from(corpus_on: CorpusOn, web: Web, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    pq.write_table(pa.table({"SHA256": [hashlib.sha256(picture(2)).hexdigest().upper()]}), out)
    built = corpus_on(optout=[str(out)])
    built.write("a", [*pairs(web, range(4)), (web.url(2, query="?quality=90"), "the same under another URL")])
    release = built.build()
    assert set(built.kept(release)) == {uid(web.url(n), caption(n)) for n in (0, 1, 3)}
    assert sorted(built.reasons(release).values()) == ["opt_out", "opt_out"]
    media = [row for row in built.rows("web-000000", "media").values() if row["error"] == "opt_out"]
    assert [(row["status"], row["length"], row["next_retry_at"]) for row in media] == [("refused", None, None)] * 2


def test_a_list_that_cannot_be_read_stops_the_build(corpus_on: CorpusOn, web: Web) -> None:
    built = corpus_on(optout=["gone.txt"])
    built.write("a", pairs(web, range(2)))
    with pytest.raises(UserError, match=r"gone\.txt: the opt-out list cannot be read"):
        built.build()
    assert not web.hits


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.txt", "example.org\nnot a thing\n", "a.txt, line 2: 'not a thing'"),
        ("a.txt", "http:///x\n", "a.txt, line 1: 'http:///x' is not a URL"),
        ("a.csv", "name,url\nx,https://example.org/a\ny,ftp://example.org/a\n", "a.csv, line 3: 'ftp:"),
        ("a.csv", "name,link\nx,y\n", "a.csv: there is no column named url, domain, uid, sha256; its columns are"),
    ],
)
def test_a_list_that_is_wrong_names_file_and_line(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError) as error:
        list(read_list(OptOutList(path=str(tmp_path / name))))
    assert said in str(error.value)


def test_lists_are_read_from_text_and_tables(tmp_path: Path) -> None:
    url, digest = "https://example.org/a%2fb#x", "AB" * 32
    domain = Selector("domain", "xn--bcher-kva.example")
    wanted = [Selector("url", "example.org/a%2Fb"), domain, Selector("sha256", "ab" * 32)]
    (tmp_path / "a.txt").write_text(f"\ufeff# mine\r\n{url}\r\n*.Bücher.example\n\n{digest}\n")
    assert list(read_list(OptOutList(path=str(tmp_path / "a.txt")))) == wanted
    (tmp_path / "a.tsv").write_text("n\tDomain\n1\tBücher.example.\n2\t\n")
    assert list(read_list(OptOutList(path=str(tmp_path / "a.tsv")))) == [domain]
    pq.write_table(pa.table({"it": [url, None]}), tmp_path / "a.parquet")
    assert list(read_list(OptOutList(path=str(tmp_path / "a.parquet"), column="it"))) == wanted[:1]
    opt_out_list = OptOutList(path=str(tmp_path / "a.parquet"), column="it", holds="domain")
    with pytest.raises(UserError, match=r"row 1: .* is not a domain"):
        list(read_list(opt_out_list))


def test_a_quote_in_a_list_hides_no_entry(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text('note\tdomain\n"asked by mail\ta.org\n5" of snow\tb.org\nlast"\tc.org\n')
    assert len(list(read_list(OptOutList(path=str(path))))) == 3
    path = tmp_path / "a.csv"
    path.write_text('note,domain\n"asked, by ""mail""",a.org\n')
    assert len(list(read_list(OptOutList(path=str(path))))) == 1


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('"open,a.org', "quotation marks"),
        ('a "b" c, d,a.org', "has 3 values"),
        ("a", "has 1 values"),
        ('"a" b,c', "quotation"),
    ],
)
def test_a_line_whose_entry_is_not_known_is_an_error_that_names_it(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f'note,domain\nok,a.org\n\n{line}\nlast",b.org\n')
    with pytest.raises(UserError, match=rf"a\.csv, line 4: .*{said}.*Remedy"):
        list(read_list(OptOutList(path=str(path))))
