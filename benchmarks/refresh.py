"""A refresh with 1% more rows against a full build of the same rows: elapsed, rows scored, shards and bytes written.

Both run the real stages: metadata in Parquet, pictures from a loopback server, the packaged scorer, a release. The
refresh starts from a workspace that was built before the new file came; the full build starts from an empty one. Both
must hold the same samples.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.download import serving, urls
from benchmarks.harness import Row, measure

SIZE = (160, 120)
NEW_SHARE = 0.01


def run(quick: bool) -> list[Row]:
    """2,000 rows and 20 more; if quick, 200 and 2."""
    rows = 200 if quick else 2000
    new = round(rows * NEW_SHARE)
    folder = Path(tempfile.mkdtemp(prefix="mmdata-bench-refresh-"))
    try:
        with serving(SIZE) as base:
            _write(folder, base, "old", 0, rows)
            measure(build, folder, "kept")
            _write(folder, base, "new", rows, new)
            refreshed, full = measure(build, folder, "kept"), measure(build, folder, "fresh")
        kept, fresh = _added_by_release(folder, "kept"), _added_by_release(folder, "fresh")
    finally:
        shutil.rmtree(folder)
    if kept["uids"] != fresh["uids"]:
        raise RuntimeError("the refresh and the full build hold different samples")
    peaks: dict[str, Any] = {"ours_peak_mib": refreshed.peak_mib, "peer_peak_mib": full.peak_mib}
    note = f"{new} new rows to {rows:,}; peer: a full build of the same"
    figures = [("elapsed", "s", refreshed.wall_s, full.wall_s)]
    figures += [("rows scored", "rows", refreshed.work, full.work)]
    figures += [(name, name, float(kept[name]), float(fresh[name])) for name in ("shards", "bytes")]
    return [
        Row(f"refresh with 1% more, {name}", unit, ours, peer, **peaks, lower_is_better=True, note=note)
        for name, unit, ours, peer in figures
    ]


def build(folder: Path, workspace_name: str) -> float:
    """Run every stale stage, as a build does; returns the number of rows that were scored."""
    from mmdata.download.stage import fetch_part
    from mmdata.engine.freshness import plan_parts
    from mmdata.instruct.stage import write_instructions
    from mmdata.publish.release import publish_release
    from mmdata.score.stage import score_part
    from mmdata.select.stage import select_samples
    from mmdata.shards.stage import write_shards
    from mmdata.sources.catalog import update_catalog
    from mmdata.takedown.read_part import read_part
    from mmdata.workspace.layout import Workspace

    corpus = _corpus(folder, workspace_name)
    workspace = Workspace(corpus.workspace)
    update_catalog(corpus, workspace)
    scored = 0
    for plan in plan_parts(corpus, workspace):
        if plan.stale:
            read_part(corpus, workspace, plan.part.name)
            fetch_part(corpus, workspace, plan.part.name)
            scored += score_part(corpus, workspace, plan.part.name).counts["scored"]
    select_samples(corpus, workspace)
    write_shards(corpus, workspace)
    write_instructions(corpus, workspace)
    publish_release(corpus, workspace)
    return float(scored)


def _corpus(folder: Path, workspace_name: str) -> Any:
    from mmdata.config.load import parse_corpus

    return parse_corpus(
        {
            "workspace": str(folder / workspace_name),
            "sources": [{"name": "web", "kind": "laion", "files": str(folder / "inbox/*.parquet"), "slice_rows": 500}],
            "download": {"image_size": 160, "allow_hosts": ["127.0.0.0/8"], "per_host": 32, "threads": 32},
            "score": {"model": "demo"},
            # all URLs share forty pictures, which deduplication would drop
            "select": {"dedup": {"exact": False, "phash_bits": None, "semantic_eps": None}},
            "shards": {"shard_mb": 1},
        }
    )


def _write(folder: Path, base: str, name: str, first: int, count: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (folder / "inbox").mkdir(exist_ok=True)
    new_urls = urls(base, first + count)[first:]
    captions = [f"soft shapes and some grain, number {number}" for number in range(first, first + count)]
    pq.write_table(pa.table({"URL": new_urls, "TEXT": captions}), folder / f"inbox/{name}.parquet")


def _added_by_release(folder: Path, workspace_name: str) -> dict[str, Any]:
    """The shards and bytes that the latest release adds to its parent, and its uids."""
    from mmdata.releases.manifest import find_manifest, open_release
    from mmdata.storage.tables import read_table
    from mmdata.workspace.layout import Workspace

    workspace = Workspace(_corpus(folder, workspace_name).workspace)
    release = open_release(workspace.root)
    parent = release.manifest["parent"]
    parent_manifest = find_manifest(workspace, parent)
    old_names = {shard["name"] for shard in parent_manifest["shards"]} if parent_manifest else set()
    new = [shard for shard in release.manifest["shards"] if shard["name"] not in old_names]
    uids = set(read_table(release.folder / "index.parquet", ["uid"])["uid"].to_pylist())
    return {"shards": len(new), "bytes": sum(shard["bytes"] for shard in new), "uids": uids}
