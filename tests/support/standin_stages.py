"""A small corpus and stand-in stages, so that the graph itself is tested in seconds.

The stand-ins keep the contract of the real stages (tables, stamps, draft, manifest) and go through the real engine.
Captions steer them: `boom` makes a slice fail, `gone` is not fetched, `nan` gets a score that is no number.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from upath import UPath

import mmdata.inspect.nightly_look
import mmdata.inspect.up_to_date  # noqa: F401 - import the real stages before the stand-ins take their place
from mmdata import samples
from mmdata.config import Corpus
from mmdata.config.load import load_corpus
from mmdata.engine import freshness, stage_fingerprints
from mmdata.engine.part_run import SliceResult, run_part_stage
from mmdata.errors import DataError
from mmdata.fingerprint import fingerprint
from mmdata.releases.draft import Draft, read_draft, write_draft
from mmdata.releases.manifest import REQUIRED
from mmdata.stage import Progress, StageReport, silent
from mmdata.storage.atomic import publish_bytes, publish_json
from mmdata.storage.tables import read_table, write_table
from mmdata.workspace.layout import Catalog, Part, SliceStamp, Workspace

PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c6360f8cf00000101000518d84e"
    "0000000049454e44ae426082"
)


@dataclass
class Small:
    """The corpus of a test: `write` puts source files in; a file is a part, a line a row, two rows a slice."""

    folder: Path

    @property
    def config_path(self) -> Path:
        return self.folder / "corpus.yaml"

    @property
    def corpus(self) -> Corpus:
        return load_corpus(self.config_path)

    @property
    def workspace(self) -> Workspace:
        return Workspace(self.corpus.workspace)

    def build(self) -> list[str]:
        """Run every stage, without Dagster; returns the parts that failed."""
        corpus, workspace = self.corpus, self.workspace
        update_catalog(corpus, workspace)
        failed = []
        for part in freshness.configured_parts(corpus, workspace):
            try:
                for stage in (read_part, fetch_part, score_part):
                    stage(corpus, workspace, part.name)
            except DataError:
                failed.append(part.name)
        select_samples(corpus, workspace)
        publish_release(corpus, workspace)
        return failed

    def write(self, name: str, *captions: str) -> None:
        (self.folder / "inbox" / name).write_text("\n".join(captions), encoding="utf-8")


def make_small(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Small:
    """A corpus of two sound parts, with the stand-in stages in place of the real ones."""
    (folder / "inbox").mkdir()
    small = Small(folder)
    small.config_path.write_text(
        "workspace: ./workspace\n"
        "sources: [{name: web, kind: laion, files: inbox/*.txt, slice_rows: 2}]\n"
        "refresh: {max_parts_per_tick: 2}\n"
        "score: {model: demo}\n"
    )
    small.write("a.txt", "a red boat", "a blue boat", "a green hat")
    small.write("b.txt", "two dogs", "one cat")
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.setenv("MMDATA_CONFIG", str(small.config_path))
    for path, function in STAGES.items():
        module_name, _, name = path.rpartition(".")
        module = ModuleType(module_name)  # no two stages share a module
        setattr(module, name, function)
        monkeypatch.setitem(sys.modules, module_name, module)
    return small


def update_catalog(corpus: Corpus, workspace: Workspace) -> StageReport:
    catalog = workspace.catalog()
    parts, files = dict(catalog.parts), {}
    here = sorted((Path(corpus.sources[0].files).parent).glob("*.txt"))
    for path in here:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        rows = len(path.read_text().splitlines())
        status, error = ("unreadable", "not text") if path.name.startswith("bad") else ("ok", None)
        files[str(path)] = {"source": "web", "digest": digest, "rows": rows, "status": status, "error": error}
        known = [p for p in parts.values() if p.path == str(path) and not p.removed]
        if status == "ok" and not any(p.digest == digest for p in known):
            for old in known:
                parts[old.name] = replace(old, removed=True)
            name = f"web-{len(parts):06d}"
            parts[name] = Part(name, "web", str(path), 0, rows, digest)
    workspace.write_catalog(Catalog(files, parts))
    return StageReport("source_catalog", counts={"files": len(here), "parts": len(parts)})


def read_part(corpus: Corpus, workspace: Workspace, part_name: str, progress: Progress = silent) -> StageReport:
    part = workspace.part(part_name)
    lines = Path(part.path).read_text().splitlines()
    inputs = {f"{n:04d}": "-".join(lines[2 * n : 2 * n + 2]) for n in range((len(lines) + 1) // 2)}

    def work(name: str) -> SliceResult:
        start = 2 * int(name)
        rows = [_row(part, start + n, text) for n, text in enumerate(lines[start : start + 2])]
        return SliceResult(samples.table_of(rows, samples.ROWS), {"rows": len(rows)})

    return _run(corpus, workspace, part, "rows", inputs, stage_fingerprints.rows_input(part), work, progress)


def fetch_part(corpus: Corpus, workspace: Workspace, part_name: str, progress: Progress = silent) -> StageReport:
    part, above = workspace.part(part_name), workspace.part_stamp(part_name, "rows")
    assert above is not None
    inputs = {name: _digest(workspace, part, "rows", name) for name in above.slices}

    def work(name: str) -> SliceResult:
        rows = read_table(workspace.table(part.name, "rows", name)).to_pylist()
        if any("boom" in row["caption"] for row in rows):
            raise DataError("the line went dead")
        done = [_medium(row) for row in rows]
        fetched = sum(row["status"] == "success" for row in done)
        counts = {"rows": len(done), "fetchable": len(done), "success": fetched}
        return SliceResult(samples.table_of(done, samples.MEDIA), counts)

    def accept(slices: Any) -> str | None:
        return None if any(s.counts["success"] for s in slices.values()) else "0% fetched, 10% asked for"

    return _run(corpus, workspace, part, "media", inputs, above.digest, work, progress, accept)


def score_part(corpus: Corpus, workspace: Workspace, part_name: str, progress: Progress = silent) -> StageReport:
    part = workspace.part(part_name)
    rows, media = workspace.part_stamp(part_name, "rows"), workspace.part_stamp(part_name, "media")
    assert rows is not None
    assert media is not None
    inputs = {
        n: stage_fingerprints.features_input(_digest(workspace, part, "rows", n), _digest(workspace, part, "media", n))
        for n in rows.slices
    }

    def work(name: str) -> SliceResult:
        captions = read_table(workspace.table(part.name, "rows", name), ["uid", "caption"]).to_pylist()
        statuses = read_table(workspace.table(part.name, "media", name), ["status"])["status"].to_pylist()
        done = [
            {"uid": row["uid"], "clip_score": _score(row["caption"]) if status == "success" else None}
            for row, status in zip(captions, statuses, strict=True)
        ]
        return SliceResult(samples.table_of(done, samples.FEATURES), {"rows": len(done)})

    upstream = stage_fingerprints.features_input(rows.digest, media.digest)
    return _run(corpus, workspace, part, "features", inputs, upstream, work, progress)


def select_samples(corpus: Corpus, workspace: Workspace, progress: Progress = silent) -> StageReport:
    parts, refused = freshness.releasable_parts(corpus, workspace)
    if not parts:
        raise DataError(f"no part is ready for a release: {refused}")
    release_id = fingerprint([part.name for part in parts], [part.digest for part in parts])
    rows = []
    for part in parts:
        stamp = workspace.part_stamp(part.name, "features")
        assert stamp is not None
        for name in stamp.slices:
            table = read_table(workspace.table(part.name, "rows", name), ["uid", "caption", "copies"])
            media = read_table(workspace.table(part.name, "media", name), ["status"])
            for row, status in zip(table.to_pylist(), media["status"].to_pylist(), strict=True):
                rows += [] if "lose" in row["caption"] else [_decision(part, name, row, keep=status == "success")]
    path = workspace.release_dir(release_id) / "selection.parquet"
    write_table(path, samples.table_of(rows, samples.SELECTION))
    write_draft(workspace, Draft(release_id, "", None, tuple(part.name for part in parts), refused, {}, {}))
    progress("selection", len(rows), len(rows))
    return StageReport("selection", counts={"rows": len(rows)}, images={"scores": PIXEL}, reasons={"media:gone": 1})


def write_shards(corpus: Corpus, workspace: Workspace, progress: Progress = silent) -> StageReport:
    return StageReport("shards", counts={"shards": 1}, paths={"shards": str(workspace.shards_dir)})


def write_instructions(corpus: Corpus, workspace: Workspace, progress: Progress = silent) -> StageReport:
    return StageReport("instructions", counts={"records": 3})


def publish_release(corpus: Corpus, workspace: Workspace) -> StageReport:
    draft = read_draft(workspace)
    empty = {**dict.fromkeys(REQUIRED), "config": {}, "shards": [], "cohorts": [], "files": {}}
    manifest = {**empty, **asdict(draft), "counts": {"kept": 1}}
    publish_json(workspace.release_dir(draft.release_id) / "manifest.json", manifest)
    workspace.set_latest(draft.release_id)
    return StageReport("release", counts={"shards": 1}, text={"latest": f"`{draft.release_id}`"})


def verify_shards(workspace: Workspace, release_id: str) -> StageReport:
    if not (workspace.release_dir(release_id) / "selection.parquet").exists():
        raise DataError(f"{release_id}: no selection")
    return StageReport("verify", counts={"shards": 1})


def report_release(folder: UPath, models: Sequence[Path] = ()) -> StageReport:
    publish_bytes(folder / "report.html", b"<h1>fine</h1>")
    return StageReport("report")


STAGES: dict[str, Callable[..., StageReport]] = {
    "mmdata.sources.catalog.update_catalog": update_catalog,
    "mmdata.takedown.read_part.read_part": read_part,
    "mmdata.download.stage.fetch_part": fetch_part,
    "mmdata.score.stage.score_part": score_part,
    "mmdata.select.stage.select_samples": select_samples,
    "mmdata.shards.stage.write_shards": write_shards,
    "mmdata.instruct.stage.write_instructions": write_instructions,
    "mmdata.publish.release.publish_release": publish_release,
    "mmdata.publish.verify.verify_shards": verify_shards,
    "mmdata.report.stage.report_release": report_release,
}


def _run(
    corpus: Corpus,
    workspace: Workspace,
    part: Part,
    stage: Any,
    inputs: dict[str, str],
    upstream: str,
    work: Callable[[str], SliceResult],
    progress: Progress,
    accept: Callable[[Any], str | None] = lambda slices: None,
) -> StageReport:
    settings = stage_fingerprints.stage_settings(corpus, part, stage)
    result = run_part_stage(
        workspace,
        part.name,
        stage,
        settings=settings,
        inputs=inputs,
        upstream=upstream,
        work=work,
        engine=corpus.engine,
        accept=accept,
    )
    rows = result.stamp.rows
    progress(stage, rows, rows)
    return StageReport(stage, part.name, counts={"rows": rows}, slices_done=result.done, slices_reused=result.reused)


def _digest(workspace: Workspace, part: Part, stage: Any, name: str) -> str:
    stamp = workspace.slice_stamp(part.name, stage, name)
    assert isinstance(stamp, SliceStamp)
    return stamp.digest


def _row(part: Part, number: int, caption: str) -> dict[str, Any]:
    url = f"http://example.org/{caption.replace(' ', '-')}.jpg"
    identity = {"uid": samples.sample_uid(url, caption), "url": url, "caption": caption}
    return identity | {"source": "web", "part": part.name, "kind": "image", "copies": 1, "row": number, "extra": "{}"}


def _medium(row: dict[str, Any]) -> dict[str, Any]:
    if "gone" in row["caption"]:
        return {"uid": row["uid"], "status": "failed_to_download", "error": "http_404", "attempts": 1}
    return {"uid": row["uid"], "status": "success", "attempts": 1, "sha256": "0" * 64, "offset": 512, "length": 10}


def _score(caption: str) -> float:
    return float("nan") if "nan" in caption else len(caption) / 100


def _decision(part: Part, slice_name: str, row: dict[str, Any], *, keep: bool) -> dict[str, Any]:
    split = "validation" if "leak" in row["caption"] else "train"
    known = {"uid": row["uid"], "part": part.name, "slice": slice_name, "copies": row["copies"]}
    decided = {"signature": "image+text", "keep": keep, "rate": 1.0, "repeats": int(keep), "cluster": 0}
    return known | decided | {"split": split if keep else None, "reason": None if keep else "media:http_404"}
