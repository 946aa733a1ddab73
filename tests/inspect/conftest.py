"""A corpus whose rows come through the real catalogue and rows stage, its media and features made without network."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmdata.config import Corpus
from mmdata.config.load import parse_corpus
from mmdata.engine.deciding_settings import deciding_settings
from mmdata.engine.freshness import is_due, plan_parts
from mmdata.engine.part_run import SliceResult, run_part_stage
from mmdata.engine.stage_fingerprints import features_input, named_settings, stage_settings
from mmdata.inspect.next_build import RefreshPlan, plan_refresh
from mmdata.instruct.stage import write_instructions
from mmdata.publish.release import publish_release
from mmdata.releases.manifest import open_release
from mmdata.samples import FEATURES, MEDIA, table_of
from mmdata.select.stage import select_samples
from mmdata.shards.stage import write_shards
from mmdata.sources.catalog import update_catalog
from mmdata.stage import StageReport
from mmdata.storage.atomic import atomic_path
from mmdata.storage.tables import read_table
from mmdata.takedown.read_part import read_part
from mmdata.workspace.layout import PartStage, Workspace

NOW = datetime(2026, 3, 1, tzinfo=UTC)
SELECT = {
    "filter": {},
    "dedup": {"phash_bits": None, "semantic_eps": None},
    "balance": {"max_ratio": None},
    "oversample": {"max_repeats": 1},
}


@dataclass
class Nightly:
    """A workspace that is refreshed; `sections` go over corpus.yaml's, `gone` are URLs that do not answer."""

    folder: Path
    sections: dict[str, Any] = field(default_factory=dict)
    source: dict[str, Any] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    ran: list[tuple[str, str, int]] = field(default_factory=list)

    @property
    def corpus(self) -> Corpus:
        source = {"name": "web", "kind": "laion", "files": str(self.folder / "inbox/*"), "slice_rows": 10}
        sections = {"select": SELECT, "shards": {"shard_mb": 0.02, "validation_fraction": 0.1}, **self.sections}
        return parse_corpus(
            {
                "workspace": str(self.folder / "workspace"),
                "sources": [source | self.source],
                "score": {"model": "demo"},
                **sections,
            }
        )

    @property
    def workspace(self) -> Workspace:
        return Workspace(self.corpus.workspace)

    def write(self, name: str, numbers: Sequence[int], caption: str = "caption number {}") -> Path:
        (self.folder / "inbox").mkdir(exist_ok=True)
        urls = [f"http://example.com/{n}.jpg" for n in numbers]
        path = self.folder / "inbox" / name
        pq.write_table(pa.table({"URL": urls, "TEXT": [caption.format(n) for n in numbers]}), path)
        return path

    @property
    def latest(self) -> str:
        return str(self.workspace.latest())

    def plan(self, *, fast: bool = False, now: datetime = NOW) -> RefreshPlan:
        return plan_refresh(self.corpus, self.workspace, now=now, fast=fast)

    def refresh(self, now: datetime = NOW) -> str:
        """What a build does; the id of the release. `ran` says which stages worked on how many slices."""
        corpus, workspace = self.corpus, self.workspace
        self.ran.clear()
        update_catalog(corpus, workspace)
        for plan in list(plan_parts(corpus, workspace, now)):
            for stage in plan.stale:
                done = self._run(stage, plan.part.name, now)
                self.ran.append((plan.part.name, stage, done))
        self.publish()
        return str(workspace.latest())

    def publish(self) -> StageReport:
        """The publish stages; the report of the shards."""
        corpus, workspace = self.corpus, self.workspace
        select_samples(corpus, workspace)
        report = write_shards(corpus, workspace)
        write_instructions(corpus, workspace)
        publish_release(corpus, workspace)
        return report

    def shards(self, release: str) -> list[dict[str, Any]]:
        return list(open_release(self.workspace.release_dir(release)).manifest["shards"])

    def release_bytes(self, release: str) -> dict[str, bytes]:
        """Everything that a release is made of."""
        folder = Path(str(self.workspace.release_dir(release)))
        own = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        shards = Path(str(self.workspace.shards_dir))
        return own | {one["name"]: (shards / one["name"]).read_bytes() for one in self.shards(release)}

    def members(self, release: str) -> dict[str, set[str]]:
        """Shard -> its keys."""
        index = read_table(self.workspace.release_dir(release) / "index.parquet", ["key", "shard"]).to_pylist()
        found: dict[str, set[str]] = {}
        for row in index:
            found.setdefault(row["shard"], set()).add(row["key"])
        return found

    def _run(self, stage: PartStage, part: str, now: datetime) -> int:
        if stage == "rows":
            return read_part(self.corpus, self.workspace, part).slices_done
        corpus, workspace = self.corpus, self.workspace
        entry, rows = workspace.part(part), workspace.part_stamp(part, "rows")
        assert rows is not None
        above = {name: workspace.slice_stamp(part, "rows", name) for name in rows.slices}
        inputs = {name: stamp.digest for name, stamp in above.items() if stamp}
        upstream = rows.digest
        if stage == "features":
            media = workspace.part_stamp(part, "media")
            assert media is not None
            upstream = features_input(rows.digest, media.digest)
            fetched = {name: workspace.slice_stamp(part, "media", name) for name in rows.slices}
            inputs = {name: features_input(inputs[name], stamp.digest) for name, stamp in fetched.items() if stamp}
        return run_part_stage(
            workspace,
            part,
            stage,
            settings=stage_settings(corpus, entry, stage),
            inputs=inputs,
            upstream=upstream,
            work=lambda name: self._fetch(part, name) if stage == "media" else self._score(part, name),
            engine=corpus.engine,
            named=named_settings(corpus, entry, stage),
            deciding=deciding_settings(corpus, entry.source),
            is_due=lambda stamp: is_due(stamp.next_retry_at, now),
        ).done

    def _fetch(self, part: str, name: str) -> SliceResult:
        rows = read_table(self.workspace.table(part, "rows", name)).to_pylist()
        records, at = [], 0
        tar = self.workspace.media_tar(part, name, None)
        with atomic_path(tar) as draft, draft.open("wb") as file:
            for row in rows:
                if row["url"] in self.gone:
                    failure = {"status": "failed_to_download", "error": "http_503", "attempts": 1, "next_retry_at": NOW}
                    records.append({"uid": row["uid"], **failure})
                    continue
                data = b"\xff\xd8\xff" + f"picture of {row['url']} {row['caption']}".encode() * 10
                file.write(data)
                place = {"ext": "jpg", "offset": at, "length": len(data), "sha256": hashlib.sha256(data).hexdigest()}
                size = {"width": 8, "height": 6, "original_width": 8, "original_height": 6, "bytes": len(data)}
                records.append({"uid": row["uid"], "status": "success", "attempts": 1, **place, **size})
                at += len(data)
        due = NOW.isoformat() if any(one["status"] != "success" for one in records) else None
        return SliceResult(table_of(records, MEDIA), {"rows": len(rows)}, next_retry_at=due)

    def _score(self, part: str, name: str) -> SliceResult:
        media = read_table(self.workspace.table(part, "media", name)).to_pylist()
        records = []
        for row in media:
            seed = int(row["uid"][:8], 16)
            vector = np.random.default_rng(seed).normal(size=8)
            found = {"clip_score": float(np.float32((seed % 1000) / 1000)), "phash": seed, "lang": "en", "n_words": 3}
            vector = (vector / np.linalg.norm(vector)).astype(np.float16)
            ok = row["status"] == "success"
            records.append({"uid": row["uid"], **(found | {"embedding": vector} if ok else {})})
        table = table_of(records, FEATURES)
        return SliceResult(table.replace_schema_metadata({b"scorer": b'{"name": "test", "fingerprint": "0123"}'}))


def stages(plan: RefreshPlan) -> dict[str, list[tuple[str, int, int]]]:
    """Part -> stage, slices, rows."""
    return {work.part.name: [(s.stage, s.slices, s.rows) for s in work.stages] for work in plan.work}


def every_file(nightly: Nightly) -> dict[str, int]:
    root = nightly.folder / "workspace"
    return {str(path): path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}


def copy_of(nightly: Nightly, folder: Path) -> Nightly:
    """The same corpus in another folder, where a plan finds nothing to do either."""
    shutil.copytree(nightly.folder, folder)
    catalog = folder / "workspace" / "catalog.json"
    catalog.write_text(catalog.read_text().replace(str(nightly.folder), str(folder)))
    return Nightly(folder, dict(nightly.sections))


@pytest.fixture
def nightly(tmp_path: Path) -> Nightly:
    """Two files of 40 and 20 rows, not built yet."""
    made = Nightly(tmp_path)
    made.write("a.parquet", range(40))
    made.write("b.parquet", range(40, 60))
    return made


@pytest.fixture(scope="session")
def shared_built(tmp_path_factory: pytest.TempPathFactory) -> Nightly:
    made = Nightly(tmp_path_factory.mktemp("nightly"))
    made.write("a.parquet", range(40))
    made.write("b.parquet", range(40, 60))
    made.refresh()
    return made


@pytest.fixture
def built(shared_built: Nightly, tmp_path: Path) -> Nightly:
    """Two files of 40 and 20 rows and a release of them: a copy for one test to change."""
    return copy_of(shared_built, tmp_path / "corpus")
