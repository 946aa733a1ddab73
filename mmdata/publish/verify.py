"""Verification: every byte of a release is read again and held against its manifest, its index and its own form."""

from __future__ import annotations

import io
import json
import re
from collections import Counter, deque
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.util import find_spec
from os import cpu_count
from typing import IO, Any

import polars as pl
from PIL import Image
from upath import UPath

from mmdata.errors import DataError
from mmdata.publish.release import sha256_of
from mmdata.releases.manifest import Release, manifest_digest, open_release
from mmdata.samples import key_uid, sample_key
from mmdata.shards.energon import offsets_path, sample_offsets
from mmdata.shards.index import Tally, read_by_shard
from mmdata.stage import Progress, StageReport, silent
from mmdata.storage.tar import BLOCK, BrokenTar, entries, padded
from mmdata.workspace.layout import Workspace, read_json

SHOWN = 20
IMAGE_STARTS = {"jpg": b"\xff\xd8\xff", "png": b"\x89PNG\r\n\x1a\n", "webp": b"RIFF"}
STARTS = {**IMAGE_STARTS, "flac": b"fLaC"}
EXTENSIONS = frozenset({*STARTS, "mp4", "txt", "json"})

_FRAME = re.compile(r"\d{3}\.(jpg|png|webp)")
_PATHS = re.compile(  # no caption can hold a bare quote
    rb'"(?:(?:input_|reference_|output_)?image|(?:input_)?(?:video|audio))":(\[[^\]]*\]|"[^"]*")'
)
_SHARD = re.compile(rb"::shards/([^\"]+)")


def verify_release(release: str | UPath, progress: Progress = silent, decode: bool = False) -> StageReport:
    """Re-read a release: hashes, tar structure, members, index, counts, splits, and the shards that records name.

    Args:
        decode: decode each picture and frame whole, too, and sound and video where PyAV is installed; about ten
            times slower.

    Raises:
        UserError: there is no release at the path.
        DataError: something does not agree; names the first 20 shards, keys or files.
    """
    opened = open_release(release)
    shards = opened.manifest["shards"]
    problems = [*_of_manifest(opened), *_of_files(opened)]
    problems += _of_instructions(opened)
    problems += _of_shards(opened.folder, shards, {s["name"] for s in shards}, progress, decode)
    _raise(opened.id, problems)
    counts = {**_counts(shards), "files": len(opened.manifest["files"])}
    return StageReport("verify", counts=counts, paths={"release": str(opened.folder)})


def verify_shards(workspace: Workspace, release_id: str, progress: Progress = silent) -> StageReport:
    """Re-read the shards of a release in the making, before a manifest vouches for them.

    Every byte of the shards that the parent release does not have; of the others, which were read when they were new,
    place and size in the index.

    Raises:
        DataError: the shards are not written yet, or something does not agree; names the first 20.
    """
    folder = workspace.release_dir(release_id)
    if (known := read_json(folder / "shards.json")) is None:
        raise DataError(f"release {release_id}: no shards yet. Remedy: materialise `shards` first.")
    parent = workspace.draft().get("parent")
    manifest = read_json(workspace.release_dir(parent) / "manifest.json") if parent else None
    old = {shard["sha256"] for shard in manifest["shards"]} if manifest else set()
    new = {shard["name"] for shard in known["shards"] if shard["sha256"] not in old}
    _raise(release_id, list(_of_shards(folder, known["shards"], new, progress)))
    counts = {**_counts(known["shards"]), "shards_read": len(new)}
    return StageReport("verify", counts=counts, paths={"release": str(folder)})


def _counts(shards: list[dict[str, Any]]) -> dict[str, int]:
    samples, size = (sum(shard[key] for shard in shards) for key in ("samples", "bytes"))
    return {"shards": len(shards), "samples": samples, "bytes": size}


def _raise(release_id: str, problems: list[str]) -> None:
    if problems:
        more = f"\n… and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise DataError(
            f"release {release_id} does not verify, {len(problems)} problem(s):\n"
            + "\n".join(f"  {problem}" for problem in problems[:SHOWN])
            + more
            + "\nRemedy: delete the shards named and materialise `shards` again, or restore them from a copy."
        )


def _of_shards(
    folder: UPath, shards: list[dict[str, Any]], read: set[str], progress: Progress, decode: bool = False
) -> Iterator[str]:
    """Problems of the index and of the shards, those named in `read` byte by byte."""
    home = Workspace(folder.parent.parent).shards_dir
    known = {shard["name"]: shard for shard in shards}
    workers = cpu_count() or 1
    running: deque[tuple[int, Future[list[str]]]] = deque()
    tally, missing = Tally(), dict(known)
    done, total = 0, sum(shard["samples"] for shard in shards)

    def check(shard: Mapping[str, Any], rows: pl.DataFrame) -> list[str]:
        return [*_of_rows(shard, rows), *_of_shard(home / shard["name"], shard, rows, shard["name"] in read, decode)]

    with ThreadPoolExecutor(workers) as pool:
        for name, rows in read_by_shard(folder / "index.parquet"):
            if (shard := missing.pop(name, None)) is None:
                yield f"index.parquet: {name} " + ("lies in two places" if name in known else "is not in the manifest")
                continue
            try:
                tally.add(rows)
            except ValueError as error:
                yield f"index.parquet: {name}: {error}"
            running.append((shard["samples"], pool.submit(check, shard, rows)))
            while len(running) > 2 * workers:  # no more rows in memory than are being checked
                samples, oldest = running.popleft()
                yield from oldest.result()
                done += samples
                progress("verify", done, total)
        for samples, last in running:
            yield from last.result()
            done += samples
            progress("verify", done, total)
    yield from (f"{name}: is in the manifest, and has no sample in the index" for name in missing)
    yield from (f"index.parquet: {uid} stands more than once under the same key" for uid in tally.doubled(SHOWN))
    yield from (f"index.parquet: {uid} is in more than one split" for uid in tally.straddling(SHOWN))


def _of_rows(shard: Mapping[str, Any], rows: pl.DataFrame) -> Iterator[str]:
    """Problems of what the index says of a shard."""
    name = shard["name"]
    if (listed := (shard["samples"], [shard["split"]])) != (found := (len(rows), rows["split"].unique().to_list())):
        yield f"{name}: the manifest says (samples, split) {listed}, the index {found}"
    for uid, key, copy in rows.select("uid", "key", "copy").iter_rows():
        if key != sample_key(uid, copy):
            yield f"index.parquet: {name}: key {key!r} is not that of copy {copy} of {uid}"


def _of_instructions(release: Release) -> Iterator[str]:
    """Shards that instruction records name and that the release does not have."""
    own = {shard["name"].encode() for shard in release.manifest["shards"]}
    for name in sorted(release.manifest["files"]):
        path = release.folder / name
        if not (name.startswith("instruct-") and name.endswith(".jsonl") and path.exists()):
            continue
        strange: Counter[bytes] = Counter()
        with path.open("rb") as file:
            for line in file:
                strange.update(
                    shard for paths in _PATHS.findall(line) for shard in _SHARD.findall(paths) if shard not in own
                )
        for shard, count in sorted(strange.items()):
            yield f"{name}: {count} record(s) name {shard.decode(errors='replace')}, which is not of this release"


def _of_manifest(release: Release) -> Iterator[str]:
    if manifest_digest(release.manifest) != release.manifest["digest"]:
        yield "manifest.json: its content does not match its digest: it was edited"


def _of_files(release: Release) -> Iterator[str]:
    for name, expected in release.manifest["files"].items():
        path = release.folder / name
        if not path.exists():
            yield f"{name}: is not there"
        elif (sha256_of(path)) != (expected["sha256"], expected["bytes"]):
            yield f"{name}: its bytes are not those of the manifest"


def _of_shard(
    path: UPath, shard: Mapping[str, Any], rows: pl.DataFrame, every_byte: bool, decode: bool
) -> Iterator[str]:
    name = shard["name"]
    if f"-{shard['sha256'][:12]}." not in name:
        yield f"{name}: its name is not that of its content"
    if not path.exists():
        yield f"{name}: is not there"
        return
    if not every_byte:
        if (size := path.stat().st_size) != shard["bytes"]:
            yield f"{name}: {size} bytes, where {shard['bytes']} should be"
        return
    digest, size = sha256_of(path)
    if (digest, size) != (shard["sha256"], shard["bytes"]):
        said = f"{shard['sha256'][:12]}… and {shard['bytes']}"
        yield f"{name}: sha256 {digest[:12]}… and {size} bytes, the manifest says {said}"
    offsets = offsets_path(path)
    if offsets.exists() and offsets.read_bytes() != sample_offsets(
        rows["offset"].to_numpy(), rows["length"].to_numpy()
    ):
        yield f"{offsets.name}: its offsets are not those of the index"
    places = {key: (offset, length) for key, offset, length in rows.select("key", "offset", "length").iter_rows()}
    try:
        with path.open("rb") as file:
            yield from _of_archive(name, file, places, decode)
    except (BrokenTar, EOFError, OSError) as error:
        yield f"{name}: not a whole tar ({error})"


def _of_archive(name: str, file: IO[bytes], places: Mapping[str, tuple[int, int]], decode: bool) -> Iterator[str]:
    """Problems of a shard's content, member by member; nothing is unpacked."""
    seen: dict[str, dict[str, int]] = {}
    starts: dict[str, int] = {}
    ends: dict[str, int] = {}
    signatures: dict[str, str] = {}
    names: Counter[str] = Counter()
    for entry in entries(file):
        names[entry.name] += 1
        key, dot, ext = entry.name.partition(".")
        if not entry.is_plain or "/" in entry.name or "\\" in entry.name or not dot or not key:
            yield f"{name}: member {entry.name!r} is no plain file of a sample"
            continue
        if ext not in EXTENSIONS and not _FRAME.fullmatch(ext):
            yield f"{name}: member {entry.name!r} is of no known kind"
            continue
        seen.setdefault(key, {})[ext] = entry.size
        starts.setdefault(key, entry.header_at)
        ends[key] = entry.header_at + padded(entry.size)
        file.seek(entry.data_at)
        content = file.read(entry.size)
        if problem := _of_member(key, ext, content, decode):
            yield f"{name}: member {entry.name}: {problem}"
        elif ext == "json":
            signatures[key] = str(json.loads(content).get("signature"))
    for member in sorted(member for member, count in names.items() if count > 1):
        yield f"{name}: member {member} stands more than once"
    for key in sorted(seen.keys() | places.keys()):
        place = (starts[key], ends[key] - starts[key]) if key in seen else None
        if place != places.get(key):
            yield f"{name}: sample {key} lies at {place}, the index says {places.get(key)} (offset, length)"
        elif missing := {"txt", "json"} - seen[key].keys():
            yield f"{name}: sample {key} has no {', '.join(sorted(missing))}"
        elif key in signatures and (wanting := _wanting(signatures[key], seen[key])):
            yield f"{name}: sample {key} is {signatures[key]}, and holds no {wanting}"
    file.seek(0, 2)
    if file.tell() != max(ends.values(), default=0) + 2 * BLOCK:
        yield f"{name}: {file.tell()} bytes, where its members end at {max(ends.values(), default=0)}"


def _wanting(signature: str, members: Collection[str]) -> str | None:
    """What a sample ought to hold by its signature and does not."""
    held = {
        "image": any(ext in members for ext in IMAGE_STARTS),
        "video": any(_FRAME.fullmatch(ext) for ext in members),
        "audio": "flac" in members,
    }
    return next((kind for kind, is_there in held.items() if kind in signature.split("+") and not is_there), None)


def _of_member(key: str, ext: str, content: bytes, decode: bool) -> str | None:
    ext = ext.rpartition(".")[2]
    if not content.startswith(STARTS.get(ext, b"")) or (ext == "mp4" and content[4:8] != b"ftyp"):
        return f"its bytes are no {ext}"
    try:
        if ext == "txt":
            content.decode("utf-8")
        if ext == "json" and (uid := json.loads(content)["uid"]) != key_uid(key):
            return f"its uid is {uid}"
        if decode:
            _decode(ext, content)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        return f"cannot be read ({error})"
    return None


def _decode(ext: str, content: bytes) -> None:
    """Decode a picture, sound or video whole. Raises ValueError where that fails, or nothing comes out."""
    try:
        if ext in IMAGE_STARTS:
            Image.open(io.BytesIO(content), formats=("JPEG", "PNG", "WEBP")).load()
        if ext in ("flac", "mp4") and find_spec("av") is not None:
            _decode_stream(content)
    except Exception as error:  # noqa: BLE001 - decoders raise what they like on hostile bytes
        raise ValueError(f"{type(error).__name__}: {error}") from None


def _decode_stream(content: bytes) -> None:
    import av

    with av.open(io.BytesIO(content), options={"err_detect": "explode"}) as container:
        if not sum(1 for _ in container.decode()):
            raise ValueError("nothing in it")
