"""Writing shards from a workspace's tables and tars, against webdataset.ShardWriter, and against `cp`."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from benchmarks.harness import Row, Run, compare, measure, start_clock
from mmdata.config import Corpus
from mmdata.config.load import parse_corpus
from mmdata.fingerprint import file_sha256
from mmdata.releases.draft import Draft, release_inputs, write_draft
from mmdata.samples import FEATURES, MEDIA, ROWS, SELECTION, sample_uid
from mmdata.storage.tables import write_table
from mmdata.workspace.layout import (
    PART_STAGES,
    Catalog,
    Part,
    PartStage,
    PartStamp,
    Workspace,
    media_tar_name,
    split_media_tar_name,
)
from mmdata.workspace.media_tar import signed

PART = "web-000000"
SLICE_SAMPLES = 2_000
IMAGE_BYTES = 20_000


def run(quick: bool) -> list[Row]:
    """Megabytes per second into shards of 64 MB, with a sync to disk on every side, against all peers."""
    samples = 1_000 if quick else 20_000
    with tempfile.TemporaryDirectory(dir=".") as folder:
        root = Path(folder)
        _prepare(root / "workspace", samples)
        _write_ours(root)  # cp copies these shards
        ours = partial(_measured, root, _write_ours)
        against_peer = compare(
            "shards: write",
            "MB/s",
            ours,
            partial(_measured, root, _write_with_webdataset),
            note=f"{samples:,} samples, {samples * IMAGE_BYTES / 1e6:,.0f} MB, against webdataset.ShardWriter, synced",
        )
        against_cp = compare(
            "shards: write",
            "MB/s",
            ours,
            partial(_measured, root, _copy),
            goal=0.8,
            note="against cp of the finished shards, synced",
        )
        against_hashed_cp = compare(
            "shards: write",
            "MB/s",
            ours,
            partial(_measured, root, _copy_and_hash),
            note="against cp and sha256sum of them, synced: names by content need the hash",
        )
    return [against_peer, against_cp, against_hashed_cp]


def _measured(root: Path, write: Callable[[Path], float]) -> Run:
    return measure(write, root)


def _write_ours(root: Path) -> float:
    import pyarrow.dataset  # noqa: F401 - or the first read imports it within the measured time

    from mmdata.shards.stage import write_shards

    workspace = Workspace(str(root / "workspace"))
    shutil.rmtree(root / "workspace" / "shards", ignore_errors=True)
    os.sync()
    start_clock()
    report = write_shards(_corpus(root / "workspace"), workspace)
    return report.counts["bytes"] / 1e6


def _write_with_webdataset(root: Path) -> float:
    """The same samples in the order of their media: the peer does not mix them."""
    import webdataset as wds

    out = root / "peer"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    workspace = Workspace(str(root / "workspace"))
    os.sync()
    start_clock()
    media = {split_media_tar_name(tar.name)[0]: tar for tar in (root / f"workspace/parts/{PART}/media").glob("*.tar")}
    with wds.ShardWriter(str(out / "%05d.tar"), maxsize=64e6, maxcount=10**9, verbose=0) as writer:
        for name, tar in sorted(media.items()):
            rows = pl.read_parquet(workspace.table(PART, "rows", name).path)
            with tarfile.open(tar) as archive:
                for row in rows.select("uid", "caption", "url").iter_rows(named=True):
                    file = archive.extractfile(f"{row['uid']}.jpg")
                    assert file is not None
                    facts = json.dumps(row)
                    writer.write(
                        {"__key__": row["uid"], "jpg": file.read(), "txt": row["caption"], "json": facts.encode()}
                    )
    _sync(out)
    return sum(path.stat().st_size for path in out.iterdir()) / 1e6


def _copy(root: Path) -> float:
    source, out = root / "workspace" / "shards", root / "copy"
    shutil.rmtree(out, ignore_errors=True)
    os.sync()
    start_clock()
    subprocess.run(["cp", "-r", str(source), str(out)], check=True)
    _sync(out)
    return sum(path.stat().st_size for path in out.glob("*.tar")) / 1e6


def _copy_and_hash(root: Path) -> float:
    megabytes = _copy(root)
    names = sorted(str(path) for path in (root / "copy").glob("*.tar"))
    subprocess.run(["sha256sum", *names], check=True, stdout=subprocess.DEVNULL)
    return megabytes


def _sync(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            handle = os.open(path, os.O_RDONLY)
            os.fsync(handle)
            os.close(handle)


def _corpus(root: Path) -> Corpus:
    source = {"name": "web", "kind": "laion", "files": "x.parquet"}
    return parse_corpus(
        {"workspace": str(root), "sources": [source], "score": {"model": "demo"}, "shards": {"shard_mb": 64}}
    )


def _prepare(root: Path, samples: int) -> None:
    """Write a workspace of one part, with tables and tars as the stages write them, and a selection that keeps all."""
    workspace = Workspace(str(root))
    workspace.write_catalog(Catalog(parts={PART: Part(PART, "web", "x.parquet", 0, samples, "d")}))
    numbers = np.random.default_rng(0)
    selection: list[dict[str, Any]] = []
    for first in range(0, samples, SLICE_SAMPLES):
        name = f"{first // SLICE_SAMPLES:04d}"
        uids = sorted(
            sample_uid(f"https://example.org/{n}.jpg", None) for n in range(first, min(first + SLICE_SAMPLES, samples))
        )
        media: list[dict[str, Any]] = []
        for stage in PART_STAGES:
            (root / "parts" / PART / stage).mkdir(parents=True, exist_ok=True)
        with tarfile.open(workspace.media_tar(PART, name, None).path, "w") as archive:
            for uid in uids:
                data = b"\xff\xd8\xff" + numbers.bytes(int(numbers.integers(IMAGE_BYTES // 2, IMAGE_BYTES * 3 // 2)))
                info = tarfile.TarInfo(f"{uid}.jpg")
                info.size = len(data)
                media.append(
                    {"uid": uid, "offset": archive.offset + 512, "length": len(data), "ext": "jpg", "sha256": uid * 2}
                )
                archive.addfile(info, io.BytesIO(data))
        records: dict[PartStage, list[dict[str, Any]]] = {
            "media": media,
            "features": [{"uid": uid, "lang": "en"} for uid in uids],
        }
        records["rows"] = [
            {"uid": uid, "url": f"https://example.org/{uid}.jpg", "source": "web", "caption": f"a caption of {uid}"}
            for uid in uids
        ]
        tar = Path(workspace.media_tar(PART, name, None).path)
        tar_sha256 = file_sha256(tar)
        tar.rename(tar.with_name(media_tar_name(name, tar_sha256)))
        for stage in PART_STAGES:
            _write(workspace, stage, name, records[stage], tar_sha256 if stage == "media" else "")
        selection += [{"uid": uid, "slice": name} for uid in uids]
    shared = {
        "part": PART,
        "copies": 1,
        "signature": "image+text",
        "keep": True,
        "rate": 1.0,
        "repeats": 1,
        "split": "train",
    }
    folder = workspace.release_dir("bench")
    table = pa.Table.from_pylist([{**shared, **row} for row in selection], schema=SELECTION).sort_by("uid")
    write_table(folder / "selection.parquet", table)
    for stage in PART_STAGES:
        names = tuple(sorted({row["slice"] for row in selection}))
        workspace.write_part_stamp(PART, stage, PartStamp("f", "d", names, samples))
    inputs = release_inputs(_corpus(root), workspace, [PART])
    write_draft(workspace, Draft("bench", inputs, None, (PART,), {}, {}, {}))


def _write(
    workspace: Workspace, stage: PartStage, name: str, records: list[dict[str, Any]], tar_sha256: str = ""
) -> None:
    schema = {"rows": ROWS, "media": MEDIA, "features": FEATURES}[stage]
    needed = {"status": "success", "attempts": 1, "source": "web", "part": PART, "kind": "image", "copies": 1, "row": 0}
    full = [{k: v for k, v in {**needed, **record}.items() if k in schema.names} for record in records]
    table = pa.Table.from_pylist(full, schema=schema)
    if tar_sha256:
        table = signed(table, "bench", tar_sha256)
    write_table(workspace.table(PART, stage, name), table)
