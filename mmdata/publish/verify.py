"""Verification: reads every byte of a release again and compares it with the manifest, the index and the format."""

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
from mmdata.releases.draft import read_draft
from mmdata.releases.manifest import Release, manifest_digest, open_release
from mmdata.samples import key_uid, sample_key
from mmdata.shards.energon import offsets_path, sample_offsets
from mmdata.shards.index import Tally, read_by_shard
from mmdata.stage import Progress, StageReport, silent
from mmdata.storage.tar import BLOCK, BrokenTar, entries, padded
from mmdata.workspace.layout import Workspace, read_json

MAX_PROBLEMS = 20  # named in an error; the rest are counted
IMAGE_SIGNATURES = {"jpg": b"\xff\xd8\xff", "png": b"\x89PNG\r\n\x1a\n", "webp": b"RIFF"}
SIGNATURES = {**IMAGE_SIGNATURES, "flac": b"fLaC"}
EXTENSIONS = frozenset({*SIGNATURES, "mp4", "txt", "json"})

_FRAME = re.compile(r"\d{3}\.(jpg|png|webp)")
_PATHS = re.compile(  # no caption can hold a bare quote
    rb'"(?:(?:input_|reference_|output_)?image|(?:input_)?(?:video|audio))":(\[[^\]]*\]|"[^"]*")'
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
    problems += _all_shard_problems(opened.folder, shards, {s["name"] for s in shards}, progress, decode)
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
        raise DataError(f"release {release_id}: no shards yet. Remedy: materialise `shards` first.")
    parent = read_draft(workspace).parent
    manifest = read_json(workspace.release_dir(parent) / "manifest.json") if parent else None
    in_parent = {shard["sha256"] for shard in manifest["shards"]} if manifest else set()
    new = {shard["name"] for shard in written["shards"] if shard["sha256"] not in in_parent}
    _raise_if_any(release_id, list(_all_shard_problems(folder, written["shards"], new, progress)))
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
            + "\nRemedy: delete the shards named and materialise `shards` again, or restore them from a copy."
        )


def _all_shard_problems(
    folder: UPath, shards: list[dict[str, Any]], read: set[str], progress: Progress, decode: bool = False
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
            *_shard_problems(shards_dir / shard["name"], shard, rows, shard["name"] in read, decode),
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
    path: UPath, shard: Mapping[str, Any], rows: pl.DataFrame, every_byte: bool, decode: bool
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
            yield from _archive_problems(name, file, places, decode)
    except (BrokenTar, EOFError, OSError) as error:
        yield f"{name}: not a whole tar ({error})"


def _archive_problems(name: str, file: IO[bytes], places: Mapping[str, tuple[int, int]], decode: bool) -> Iterator[str]:
    """Problems of the content of a shard, member by member. Nothing is unpacked to disk."""
    seen: dict[str, dict[str, int]] = {}
    starts: dict[str, int] = {}
    ends: dict[str, int] = {}
    signatures: dict[str, str] = {}
    names: Counter[str] = Counter()
    for entry in entries(file):
        names[entry.name] += 1
        key, dot, ext = entry.name.partition(".")
        if not entry.is_plain or "/" in entry.name or "\\" in entry.name or not dot or not key:
            yield f"{name}: member {entry.name!r} is not a plain file of a sample"
            continue
        if ext not in EXTENSIONS and not _FRAME.fullmatch(ext):
            yield f"{name}: member {entry.name!r} has an unknown extension"
            continue
        seen.setdefault(key, {})[ext] = entry.size
        starts.setdefault(key, entry.header_at)
        ends[key] = entry.header_at + padded(entry.size)
        file.seek(entry.data_at)
        content = file.read(entry.size)
        if problem := _member_problem(key, ext, content, decode):
            yield f"{name}: member {entry.name}: {problem}"
        elif ext == "json":
            signatures[key] = str(json.loads(content).get("signature"))
    for member in sorted(member for member, count in names.items() if count > 1):
        yield f"{name}: member {member} occurs more than once"
    for key in sorted(seen.keys() | places.keys()):
        place = (starts[key], ends[key] - starts[key]) if key in seen else None
        if place != places.get(key):
            yield f"{name}: sample {key} is at {place}, the index says {places.get(key)} (offset, length)"
        elif missing := {"txt", "json"} - seen[key].keys():
            yield f"{name}: sample {key} has no {', '.join(sorted(missing))}"
        elif key in signatures and (lacking := _lacking_kind(signatures[key], seen[key])):
            yield f"{name}: sample {key} is {signatures[key]}, but contains no {lacking}"
    file.seek(0, 2)
    if file.tell() != max(ends.values(), default=0) + 2 * BLOCK:
        yield f"{name}: {file.tell()} bytes, but its members end at {max(ends.values(), default=0)}"


def _lacking_kind(signature: str, members: Collection[str]) -> str | None:
    """The first kind of media that the signature of a sample names and its members lack."""
    present = {
        "image": any(ext in members for ext in IMAGE_SIGNATURES),
        "video": any(_FRAME.fullmatch(ext) for ext in members),
        "audio": "flac" in members,
    }
    return next((kind for kind, is_present in present.items() if kind in signature.split("+") and not is_present), None)


def _member_problem(key: str, ext: str, content: bytes, decode: bool) -> str | None:
    ext = ext.rpartition(".")[2]
    if not content.startswith(SIGNATURES.get(ext, b"")) or (ext == "mp4" and content[4:8] != b"ftyp"):
        return f"its bytes are not a {ext}"
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
    """Decode a picture, sound or video completely. Raises ValueError where that fails or gives nothing."""
    try:
        if ext in IMAGE_SIGNATURES:
            Image.open(io.BytesIO(content), formats=("JPEG", "PNG", "WEBP")).load()
        if ext in ("flac", "mp4") and find_spec("av") is not None:
            _decode_stream(content)
    except Exception as error:  # noqa: BLE001 - decoders raise what they like on hostile bytes
        raise ValueError(f"{type(error).__name__}: {error}") from None


def _decode_stream(content: bytes) -> None:
    import av

    with av.open(io.BytesIO(content), options={"err_detect": "explode"}) as container:
        if not sum(1 for _ in container.decode()):
            raise ValueError("it has no frames")
