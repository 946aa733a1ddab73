"""The release stage: writes the files that other tools need, then the manifest, then the name of the latest."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import polars as pl
from upath import UPath

from mmdata.config import Corpus
from mmdata.engine.freshness import releasable_parts
from mmdata.errors import DataError
from mmdata.observe import logs
from mmdata.publish.croissant import croissant, json_ld
from mmdata.publish.hugging_face import write_features
from mmdata.releases.changes import change_images, change_tables, change_text
from mmdata.releases.diff import Changes
from mmdata.releases.draft import Draft, check_draft
from mmdata.releases.drift import read_changes, write_changes
from mmdata.releases.holds import hold_reason, write_hold
from mmdata.releases.manifest import FORMAT, FORMAT_WITH_CAPTIONS, find_manifest, manifest_digest, public_config
from mmdata.releases.pins import rolled_back
from mmdata.releases.shard import shard_problems
from mmdata.score.features_reader import scorer_mark
from mmdata.score.generated_captions import captioner_mark
from mmdata.shards.cohorts import SPLITS
from mmdata.shards.energon import write_energon
from mmdata.stage import StageReport
from mmdata.storage.atomic import TEMPORARY, publish_bytes, publish_json
from mmdata.storage.tables import read_table, scan_tables
from mmdata.workspace.json_files import read_json
from mmdata.workspace.layout import Workspace

_log = logs.logger(__name__)

NOT_LISTED = ("manifest.json", "croissant.json", "report.html")  # files about the release, which may be written again


def publish_release(corpus: Corpus, workspace: Workspace) -> StageReport:
    """Publish the draft release; a release that is published already is left as it is.

    It becomes the latest, unless a release of the same inputs was rolled back, or it is held: see `hold_reason`.

    Raises:
        DataError: an earlier stage is missing, a shard is missing or cut, or a part is no longer accepted.
    """
    draft = check_draft(corpus, workspace)
    release = draft.release_id
    folder = workspace.release_dir(release)
    manifest = find_manifest(workspace, release)
    is_published = manifest is not None
    if manifest is None:
        shards = read_json(folder / "shards.json")
        instructions = read_json(folder / "instructions.json")
        for stage, output in (("shards", shards), ("instructions", instructions)):
            if output is None:
                raise DataError(
                    f"release {release}: `{stage}` is not made yet. Remedy: `mmdata build`, or materialise `{stage}`."
                )
        assert shards is not None
        _check_parts(corpus, workspace, draft)
        if problem := next(shard_problems(workspace, shards["shards"]), None):
            raise DataError(f"{problem}. Remedy: `mmdata build` (or materialise `shards`) writes it again.")
        _write_wids(folder, release, shards["shards"])
        write_energon(folder, shards["shards"])
        write_features(folder, corpus.clips.keep_video, corpus.recaption.is_on)
        write_changes(workspace, draft, shards, corpus.releases)
        manifest = _manifest(corpus, workspace, draft, shards)
        manifest["files"] = _files(folder)
        publish_bytes(folder / "croissant.json", json_ld(croissant(manifest)))
        manifest["digest"] = manifest_digest(manifest)
        publish_json(folder / "manifest.json", manifest)
        sizes = {"shards": len(manifest["shards"]), "samples": sum(s["samples"] for s in manifest["shards"])}
        _log.info("release is published", release=release, parent=manifest["parent"], **sizes)
    why_not = _rollback_reason(workspace, manifest)
    why_held = hold_reason(workspace, manifest, corpus.releases) if why_not is None else None
    write_hold(workspace, release, why_held)
    why_not = why_not or why_held
    if why_not is None and workspace.latest() != release:
        workspace.set_latest(release)
        _log.info("release is the latest", release=release)
    if why_held is not None:
        _log.warning("release is held", release=release, why=why_held)
    before = f"stays `{workspace.latest()}`" if workspace.latest() else "stays without a release"
    latest = f"`{workspace.latest()}`" if why_not is None else f"{before}: {why_not}"
    report = _report(folder, manifest, latest, read_changes(workspace, release))
    return replace(report, slices_reused=1) if is_published else replace(report, slices_done=1)


def _rollback_reason(workspace: Workspace, manifest: dict[str, Any]) -> str | None:
    """Why a release that a person went back from stays so, and the command that undoes that; None: nobody did."""
    mark = rolled_back(workspace).get(manifest["inputs"])
    if mark is None or workspace.latest() == manifest["release_id"]:
        return None
    earlier = mark["release"]
    return (
        f"the same inputs made release `{earlier}`, which was rolled back at {mark['at']}. "
        f"`mmdata rollback {earlier}` makes it the latest again."
    )


def _check_parts(corpus: Corpus, workspace: Workspace, draft: Draft) -> None:
    ready = {part.name for part in releasable_parts(corpus, workspace)[0]}
    if gone := sorted(set(draft.parts) - ready):
        raise DataError(
            f"parts {', '.join(gone[:10])} were selected but are not accepted any more. "
            "Remedy: `mmdata build` brings them up to date and selects again."
        )


def _write_wids(folder: UPath, release: str, shards: list[dict[str, Any]]) -> None:
    """Write the index of the wids library, one file per split: `wids.json` for train, and `wids-validation.json`."""
    for split in SPLITS:
        shard_list = [
            {"url": f"../../shards/{shard['name']}", "nsamples": shard["samples"], "filesize": shard["bytes"]}
            for shard in shards
            if shard["split"] == split
        ]
        name = "wids.json" if split == "train" else f"wids-{split}.json"
        header = {"__kind__": "wids-shard-index-v1", "wids_version": 1, "name": f"{release}-{split}"}
        publish_json(folder / name, {**header, "shardlist": shard_list})


def _manifest(corpus: Corpus, workspace: Workspace, draft: Draft, shards: dict[str, Any]) -> dict[str, Any]:
    folder = workspace.release_dir(draft.release_id)
    return {
        "format": FORMAT_WITH_CAPTIONS if corpus.recaption.is_on else FORMAT,
        "release_id": draft.release_id,
        "inputs": draft.inputs,
        "parent": draft.parent,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "config": public_config(corpus),
        "scorer": _scorer(workspace, draft.parts),
        **({"captioners": _captioners(workspace, draft.parts)} if corpus.recaption.is_on else {}),
        "parts": draft.parts,
        "refused_parts": draft.refused_parts,
        "counts": draft.counts,
        "reasons": draft.reasons,
        "signatures": _signatures(folder),
        "cohorts": shards["cohorts"],
        "shards": shards["shards"],
    }


def _scorer(workspace: Workspace, parts: Sequence[str]) -> dict[str, Any] | None:
    """The model that scored the parts, read from the metadata of their features."""
    for part in parts:
        stamp = workspace.part_stamp(part, "features")
        for name in stamp.slices if stamp else ():
            if mark := scorer_mark(read_table(workspace.table(part, "features", name), ["uid"]).schema.metadata):
                return mark._asdict()
    return None


def _captioners(workspace: Workspace, parts: Sequence[str]) -> list[dict[str, Any]]:
    """What made the captions of the parts: name, fingerprint, prompt and length, each once, sorted."""
    marks = {}
    for part in parts:
        stamp = workspace.part_stamp(part, "features")
        for name in stamp.slices if stamp else ():
            metadata = read_table(workspace.table(part, "features", name), ["uid"]).schema.metadata
            if mark := captioner_mark(metadata):
                marks[mark.name, mark.fingerprint] = mark._asdict()
    return [marks[key] for key in sorted(marks)]


def _signatures(folder: UPath) -> dict[str, dict[str, int]]:
    grouped = (
        scan_tables([folder / "index.parquet"])
        .group_by("signature")
        .agg(
            samples=pl.len(),
            unique=pl.col("uid").n_unique(),
            tokens=pl.col("tokens").sum().cast(pl.Int64),
            pixels=pl.col("pixels").sum(),
        )
        .sort("signature")
        .collect()
    )
    return {row.pop("signature"): row for row in grouped.iter_rows(named=True)}


def _files(folder: UPath) -> dict[str, dict[str, Any]]:
    """The hash and size of every file of the release."""
    files: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.rglob("*"), key=str):
        name = str(path.relative_to(folder))
        if path.is_file() and name not in NOT_LISTED and not path.name.startswith(TEMPORARY):
            digest, size = sha256_of(path)
            files[name] = {"sha256": digest, "bytes": size}
    return files


def sha256_of(path: UPath) -> tuple[str, int]:
    """The SHA-256 and the size in bytes of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), file.tell()


def _report(folder: UPath, manifest: dict[str, Any], latest: str, changes: Changes | None) -> StageReport:
    shards = manifest["shards"]
    counts = {
        "samples": sum(s["samples"] for s in shards),
        "shards": len(shards),
        "bytes": sum(s["bytes"] for s in shards),
        "parts": len(manifest["parts"]),
        "parts_refused": len(manifest["refused_parts"]),
    }
    table = [{"signature": name, **values} for name, values in manifest["signatures"].items()]
    refused = [{"part": name, "reason": reason} for name, reason in manifest["refused_parts"].items()]
    text = {"release": f"`{manifest['release_id']}`, parent `{manifest['parent']}`", "latest": latest}
    return StageReport(
        "release",
        counts=counts,
        images=change_images(changes),
        tables={"signatures": table, "parts left out": refused, **change_tables(changes)},
        text=text | change_text(changes),
        paths={"release": str(folder), "manifest": str(folder / "manifest.json")},
        version=manifest["digest"],
    )
