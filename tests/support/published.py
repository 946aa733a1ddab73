"""A corpus that was really built: metadata files, a web server that counts, every stage, and releases of it."""

from __future__ import annotations

import io
import re
import tarfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from upath import UPath

from mmdata.config import Corpus
from mmdata.config.load import parse_corpus
from mmdata.download.stage import fetch_part
from mmdata.engine.freshness import plan_part, plan_parts, releasable_parts
from mmdata.instruct.stage import write_instructions
from mmdata.publish.release import publish_release
from mmdata.samples import sample_uid
from mmdata.score.stage import score_part
from mmdata.select.stage import select_samples
from mmdata.shards.stage import write_shards
from mmdata.sources.catalog import update_catalog
from mmdata.stage import StageReport
from mmdata.storage.tables import read_table
from mmdata.takedown.read_part import read_part
from mmdata.urls import canonical_url
from mmdata.workspace.layout import Workspace

SELECT_ALL: dict[str, Any] = {
    "filter": {},
    "dedup": {"phash_bits": None, "semantic_eps": None, "url": False, "exact": False},
    "balance": {"max_ratio": None},
    "oversample": {"max_repeats": 1},
}
STAGES: Mapping[str, Callable[..., StageReport]] = {"rows": read_part, "media": fetch_part, "features": score_part}


@cache
def picture(number: int, quality: int = 90) -> bytes:
    """A JPEG that is like no other number's."""
    grey = np.random.default_rng(number).integers(0, 255, (6, 8, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(grey).resize((96, 72), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def caption(number: int) -> str:
    return f"picture number {number} of a quiet sea at noon"


class Web:
    """Serves `/<number>.jpg`, `/<number>.jpg?quality=…`, and counts."""

    def __init__(self) -> None:
        self.hits: Counter[str] = Counter()
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                web.hits[self.path] += 1
                path, _, query = self.path.partition("?")
                if not re.fullmatch(r"/\d+\.jpg", path) or not re.fullmatch(r"(quality=\d+)?", query):
                    self.send_error(404)
                    return
                body = picture(int(path.strip("/").removesuffix(".jpg")), int(query.partition("=")[2] or 90))
                self.send_response(200)
                self.send_header("Content-Type", "image/jpeg")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("0.0.0.0", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def url(self, number: int, host: str = "127.0.0.1", query: str = "") -> str:
        return f"http://{host}:{self.server.server_address[1]}/{number}.jpg{query}"


@contextmanager
def serving() -> Iterator[Web]:
    web = Web()
    try:
        yield web
    finally:
        web.server.shutdown()
        web.server.server_close()


class Published:
    """A corpus in a folder, its workspace there or elsewhere.

    Args:
        root: of the workspace.
    """

    def __init__(self, folder: Path, root: str, web: Web, **sections: Any) -> None:
        self.folder, self.root, self.web = folder, root, web
        (folder / "inbox").mkdir(parents=True, exist_ok=True)
        self.sections: dict[str, Any] = sections
        self.scored: list[str] = []

    @property
    def corpus(self) -> Corpus:
        source = {"name": "web", "kind": "laion", "files": "inbox/*.parquet", "slice_rows": 4}
        settings = {
            "workspace": self.root,
            "sources": [source],
            "download": {"allow_hosts": ["127.0.0.0/8"], "retries": 0, "timeout_s": 5, "deadline_s": 9},
            "score": {"model": "demo"},
            "select": SELECT_ALL,
            "shards": {"shard_mb": 0.02, "validation_fraction": 0.1},
        }
        return parse_corpus({**settings, **self.sections}, base=self.folder)

    @property
    def workspace(self) -> Workspace:
        return Workspace(self.root)

    def write(self, name: str, rows: Sequence[tuple[str, str]]) -> None:
        """A metadata file of URLs and captions."""
        urls, captions = ([row[n] for row in rows] for n in (0, 1))
        extra = [f"licence of {text}" for text in captions]
        table = pa.table({"URL": urls, "TEXT": captions, "LICENSE": extra})
        pq.write_table(table, self.folder / "inbox" / f"{name}.parquet")

    def build(self) -> str:
        """Bring all up to date, as `mmdata build` does; the id of the latest release."""
        corpus, workspace = self.corpus, self.workspace
        update_catalog(corpus, workspace)
        for plan in plan_parts(corpus, workspace):
            for stage, work in STAGES.items():
                if stage in plan_part(corpus, workspace, plan.part).stale:
                    report = work(corpus, workspace, plan.part.name)
                    self.scored += [plan.part.name] * (stage == "features" and report.slices_done > 0)
        assert releasable_parts(corpus, workspace)[1] == {}
        select_samples(corpus, workspace)
        write_shards(corpus, workspace)
        write_instructions(corpus, workspace)
        publish_release(corpus, workspace)
        return str(workspace.latest())

    def parts(self) -> list[str]:
        return list(self.workspace.catalog().parts)

    def rows(self, part: str, stage: Any) -> dict[str, dict[str, Any]]:
        """A part's table of a stage by uid, whatever the slice."""
        stamp = self.workspace.part_stamp(part, stage)
        names = stamp.slices if stamp else ()
        tables = [read_table(self.workspace.table(part, stage, name)).to_pylist() for name in names]
        return {row["uid"]: row for table in tables for row in table}

    def kept(self, release: str) -> dict[str, dict[str, Any]]:
        """The kept samples of a release by uid."""
        table = read_table(self.workspace.release_dir(release) / "selection.parquet").to_pylist()
        return {row["uid"]: row for row in table if row["keep"]}

    def reasons(self, release: str) -> dict[str, str]:
        table = read_table(self.workspace.release_dir(release) / "selection.parquet").to_pylist()
        return {row["uid"]: row["reason"] for row in table if not row["keep"]}

    def copies(self, release: str) -> int:
        return sum(read_table(self.workspace.release_dir(release) / "selection.parquet")["copies"].to_pylist())


def pairs(web: Web, numbers: range, host: str = "127.0.0.1") -> list[tuple[str, str]]:
    """URLs and captions of numbered pictures."""
    return [(web.url(n, host), caption(n)) for n in numbers]


def uid(url: str, text: str) -> str:
    return sample_uid(canonical_url(url), text)


def stored(built: Published, part: str, sample: str) -> bytes:
    """The bytes that are stored of a sample."""
    for path in (built.workspace.part_dir(part) / "media").glob("*.parquet"):
        table = read_table(path)
        for row in table.to_pylist():
            if row["uid"] == sample:
                tar = built.workspace.media_tar(part, path.stem, table.schema.metadata)
                return tar.read_bytes()[row["offset"] : row["offset"] + row["length"]]
    raise AssertionError(f"{sample} is not in {part}")


def places_of(root: UPath, needle: bytes) -> list[str]:
    """Every file under a folder that holds some bytes: tables unpacked to their values, tars to their members."""
    return [str(path) for path in sorted(root.rglob("*"), key=str) if path.is_file() and _holds(path, needle)]


def _holds(path: UPath, needle: bytes) -> bool:
    data = path.read_bytes()
    if needle in data:
        return True
    if path.suffix == ".parquet":
        return needle in repr(pq.read_table(io.BytesIO(data)).to_pylist()).encode()
    if path.suffix == ".tar":
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            return any(needle in file.read() for member in archive if (file := archive.extractfile(member)) is not None)
    return False
