"""Split-view poisoning (Carlini et al. 2023): who gathers a list is shown one picture, who fetches it another."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mmdata.config.load import parse_corpus
from mmdata.download.stage import fetch_part
from mmdata.sources.catalog import update_catalog
from mmdata.storage.tables import read_table
from mmdata.takedown.read_part import read_part
from mmdata.workspace.layout import Workspace
from tests.support.hostile_server import HostileServer, answer, jpeg

SEEN, POISON = jpeg(1), jpeg(2)


def corpus_at(folder: Path, web: HostileServer, expected: list[str | None]):
    urls = [web.url(f"/{name}.jpg") for name in ("honest", "bought", "unknown", "redirected")]
    (folder / "inbox").mkdir(parents=True)
    table = pa.table({"url": urls, "caption": ["a", "b", "c", "d"], "sha256": expected})
    pq.write_table(table, folder / "inbox" / "list.parquet")
    columns = {"url": "url", "caption": "caption", "expected_sha256": "sha256"}
    source = {"name": "web", "kind": "pairs", "files": str(folder / "inbox/*.parquet"), "columns": columns}
    download = {"allow_hosts": ["127.0.0.0/8"], "timeout_s": 2, "deadline_s": 3, "retries": 0}
    return parse_corpus({"workspace": str(folder / "w"), "sources": [source], "download": download})


def fetched(folder: Path, web: HostileServer, expected: list[str | None]) -> tuple[dict[str, dict], bytes]:
    """By caption what became of a row; and all bytes that were stored."""
    corpus = corpus_at(folder, web, expected)
    workspace = Workspace(corpus.workspace)
    update_catalog(corpus, workspace)
    for part in workspace.catalog().parts:
        read_part(corpus, workspace, part)
        fetch_part(corpus, workspace, part)
        rows = read_table(workspace.table(part, "rows", "0000")).to_pylist()
        media = {row["uid"]: row for row in read_table(workspace.table(part, "media", "0000")).to_pylist()}
    stored = b"".join(path.read_bytes() for path in Path(workspace.root.path).rglob("*.tar"))
    return {row["caption"]: media[row["uid"]] for row in rows}, stored


def serve(web: HostileServer, **bodies: bytes) -> None:
    for name, body in bodies.items():
        web.files[f"/{name}.jpg"] = answer(body, Content_Type="image/jpeg")
    web.files["/redirected.jpg"] = answer(b"", "302 Found", Location="/bought.jpg")


def test_a_picture_other_than_the_listed_one_is_refused_and_not_stored(web: HostileServer, tmp_path: Path) -> None:
    digest = hashlib.sha256(SEEN).hexdigest()
    serve(web, honest=SEEN, bought=POISON, unknown=POISON)
    by_caption, stored = fetched(tmp_path / "given", web, [digest, digest.upper(), None, digest])
    assert {caption: (row["status"], row["error"]) for caption, row in by_caption.items()} == {
        "a": ("success", None),
        "b": ("failed_to_download", "hash_mismatch"),
        "c": ("success", None),  # nobody said what to expect: what docs/security.md calls unprotected
        "d": ("failed_to_download", "hash_mismatch"),
    }
    assert by_caption["a"]["sha256"] == digest
    assert all(by_caption[caption]["offset"] is None and by_caption[caption]["length"] is None for caption in "bd")
    only, _ = fetched(tmp_path / "alone", web, [digest, digest, digest, digest])
    assert [caption for caption, row in only.items() if row["status"] == "success"] == ["a"]
    assert stored.count(b"\xff\xd8\xff") == 2, "the honest picture, and the one that nobody vouches for"


def test_a_row_with_an_invalid_hash_is_a_bad_row(web: HostileServer, tmp_path: Path) -> None:
    serve(web, honest=SEEN, bought=SEEN, unknown=SEEN)
    by_caption, _ = fetched(tmp_path, web, ["0" * 63, "md5:abc", "", None])
    assert [by_caption[caption]["error"] for caption in "abc"] == ["bad_row", "bad_row", None]
