"""Verification: reads every byte of a release again and compares it with the manifest, the index and the format."""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from os import cpu_count
from typing import Any

import polars as pl
from upath import UPath

from mmdata.errors import DataError
from mmdata.publish.archive_problems import MemberChecks, archive_problems
from mmdata.publish.release import sha256_of
from mmdata.releases.draft import read_draft
from mmdata.releases.manifest import DAMAGED_REMEDY, Release, find_manifest, has_captions, manifest_digest, open_release
from mmdata.samples import sample_key
from mmdata.shards.energon import offsets_path, sample_offsets
from mmdata.shards.index import Tally, read_by_shard
from mmdata.stage import Progress, StageReport, silent
from mmdata.storage.tar import BrokenTar
from mmdata.workspace.json_files import read_json
from mmdata.workspace.layout import Workspace

MAX_PROBLEMS = 20  # named in an error; the rest are counted

# No caption can hold a bare quote. A list or text that lacks its end reaches to the end of the line: a search for the
# end that fails would be made again from each name in the line.
_PATHS = re.compile(
    rb'"(?:(?:input_|reference_|output_)?image|(?:input_)?(?:video|audio))":(\[[^\]]*+(?:\]|\Z)|"[^"]*+(?:"|\Z))'
)
_SHARD = re.compile(rb"::shards/([^\"]+)")


def verify_release(release: str | UPath, progress: Progress = silent, decode: bool = False) -> StageReport:
    """Read a release again: hashes, tar structure, members, index, counts, splits, and shards named by instructions.

    Args:
        decode: also decode each picture and frame, and sound and video if PyAV is installed; about ten times slower.

    Raises:
        UserError: there is no release at the path.
        DataError: something differs; names the first 20 shards, keys or files.
    """
    opened = open_release(release)
    shards = opened.manifest["shards"]
    problems = [*_file_problems(opened), *_instruction_problems(opened)]
    checks = MemberChecks(decode=decode, facts=opened.manifest["format"] > 1, captions=has_captions(opened.manifest))
    problems += _all_shard_problems(opened.folder, shards, {s["name"] for s in shards}, progress, checks)
    _raise_if_any(opened.id, problems)
    counts = {**_counts(shards), "files": len(opened.manifest["files"])}
    return StageReport("verify", counts=counts, paths={"release": str(opened.folder)})


def verify_shards(workspace: Workspace, release_id: str, progress: Progress = silent) -> StageReport:
    """Read the shards of a draft release again, before it is published.

    Reads every byte of the shards that the parent release does not have. The other shards were read when they were
    new; only their sizes and their rows in the index are checked.

    Raises:
        DataError: the shards are not written yet, or something differs; names the first 20 problems.
    """
    folder = workspace.release_dir(release_id)
    if (written := read_json(folder / "shards.json")) is None:
        raise DataError(f"release {release_id}: no shards yet. Remedy: `mmdata build`, or materialise `shards`.")
    parent = read_draft(workspace).parent
    manifest = find_manifest(workspace, parent)
    in_parent = {shard["sha256"] for shard in manifest["shards"]} if manifest else set()
    new = {shard["name"] for shard in written["shards"] if shard["sha256"] not in in_parent}
    checks = MemberChecks(captions="captions" in written)
    _raise_if_any(release_id, list(_all_shard_problems(folder, written["shards"], new, progress, checks)))
    counts = {**_counts(written["shards"]), "shards_read": len(new)}
    return StageReport("verify", counts=counts, paths={"release": str(folder)})


def _counts(shards: list[dict[str, Any]]) -> dict[str, int]:
    samples, size = (sum(shard[key] for shard in shards) for key in ("samples", "bytes"))
    return {"shards": len(shards), "samples": samples, "bytes": size}


def _raise_if_any(release_id: str, problems: list[str]) -> None:
    if problems:
        more = f"\n… and {len(problems) - MAX_PROBLEMS} more" if len(problems) > MAX_PROBLEMS else ""
        raise DataError(
            f"release {release_id} does not verify, {len(problems)} problem(s):\n"
            + "\n".join(f"  {problem}" for problem in problems[:MAX_PROBLEMS])
            + more
            + f"\n{DAMAGED_REMEDY}"
        )


def _all_shard_problems(
    folder: UPath, shards: list[dict[str, Any]], read: set[str], progress: Progress, checks: MemberChecks
) -> Iterator[str]:
    """Problems of the index and of all shards; the shards named in `read` are read byte by byte."""
    shards_dir = Workspace(folder.parent.parent).shards_dir
    by_name = {shard["name"]: shard for shard in shards}
    workers = cpu_count() or 1
    running: deque[tuple[int, Future[list[str]]]] = deque()
    tally, missing = Tally(), dict(by_name)
    done, total = 0, sum(shard["samples"] for shard in shards)

    def check(shard: Mapping[str, Any], rows: pl.DataFrame) -> list[str]:
        return [
            *_row_problems(shard, rows),
            *_shard_problems(shards_dir / shard["name"], shard, rows, shard["name"] in read, checks),
        ]

    with ThreadPoolExecutor(workers) as pool:
        for name, rows in read_by_shard(folder / "index.parquet"):
            if (shard := missing.pop(name, None)) is None:
                yield f"index.parquet: {name} " + (
                    "has rows in two places" if name in by_name else "is not in the manifest"
                )
                continue
            try:
                tally.add(rows)
            except ValueError as error:
                yield f"index.parquet: {name}: {error}"
            running.append((shard["samples"], pool.submit(check, shard, rows)))
            while len(running) > 2 * workers:  # this bounds how many rows are in memory
                samples, oldest = running.popleft()
                yield from oldest.result()
                done += samples
                progress("verify", done, total)
        for samples, future in running:
            yield from future.result()
            done += samples
            progress("verify", done, total)
    yield from (f"{name}: is in the manifest, and has no sample in the index" for name in missing)
    yield from (f"index.parquet: {uid} occurs more than once with the same key" for uid in tally.doubled(MAX_PROBLEMS))
    yield from (f"index.parquet: {uid} is in more than one split" for uid in tally.straddling(MAX_PROBLEMS))


def _row_problems(shard: Mapping[str, Any], rows: pl.DataFrame) -> Iterator[str]:
    """Differences between the manifest and the rows that the index has of a shard."""
    name = shard["name"]
    in_manifest, in_index = (shard["samples"], [shard["split"]]), (len(rows), rows["split"].unique().to_list())
    if in_manifest != in_index:
        yield f"{name}: the manifest says (samples, split) {in_manifest}, the index {in_index}"
    for uid, key, copy in rows.select("uid", "key", "copy").iter_rows():
        if key != sample_key(uid, copy):
            yield f"index.parquet: {name}: key {key!r} is not that of copy {copy} of {uid}"


def _instruction_problems(release: Release) -> Iterator[str]:
    """Shards that instruction records name although the release does not have them."""
    shard_names = {shard["name"].encode() for shard in release.manifest["shards"]}
    for name in sorted(release.manifest["files"]):
        path = release.folder / name
        if not (name.startswith("instruct-") and name.endswith(".jsonl") and path.exists()):
            continue
        foreign: Counter[bytes] = Counter()
        with path.open("rb") as file:
            for line in file:
                foreign.update(
                    shard
                    for paths in _PATHS.findall(line)
                    for shard in _SHARD.findall(paths)
                    if shard not in shard_names
                )
        for shard, count in sorted(foreign.items()):
            yield f"{name}: {count} record(s) name {shard.decode(errors='replace')}, which is not part of this release"


def _file_problems(release: Release) -> Iterator[str]:
    """Differences between the manifest and its own digest, and between the manifest and the files that it lists."""
    if manifest_digest(release.manifest) != release.manifest["digest"]:
        yield "manifest.json: its content does not match its digest; it was edited"
    for name, expected in release.manifest["files"].items():
        path = release.folder / name
        if not path.exists():
            yield f"{name}: is not there"
        elif sha256_of(path) != (expected["sha256"], expected["bytes"]):
            yield f"{name}: its bytes are not those of the manifest"


def _shard_problems(
    path: UPath, shard: Mapping[str, Any], rows: pl.DataFrame, every_byte: bool, checks: MemberChecks
) -> Iterator[str]:
    name = shard["name"]
    if f"-{shard['sha256'][:12]}." not in name:
        yield f"{name}: its name does not match its sha256"
    if not path.exists():
        yield f"{name}: is not there"
        return
    if not every_byte:
        if (size := path.stat().st_size) != shard["bytes"]:
            yield f"{name}: {size} bytes, but the manifest says {shard['bytes']}"
        return
    digest, size = sha256_of(path)
    if (digest, size) != (shard["sha256"], shard["bytes"]):
        expected = f"{shard['sha256'][:12]}… and {shard['bytes']}"
        yield f"{name}: sha256 {digest[:12]}… and {size} bytes, the manifest says {expected}"
    offsets = offsets_path(path)
    if offsets.exists() and offsets.read_bytes() != sample_offsets(
        rows["offset"].to_numpy(), rows["length"].to_numpy()
    ):
        yield f"{offsets.name}: its offsets differ from those of the index"
    places = {key: (offset, length) for key, offset, length in rows.select("key", "offset", "length").iter_rows()}
    try:
        with path.open("rb") as file:
            yield from archive_problems(name, file, places, checks)
    except (BrokenTar, EOFError, OSError) as error:
        yield f"{name}: not a whole tar ({error})"
