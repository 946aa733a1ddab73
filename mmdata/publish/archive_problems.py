"""Problems of the content of a shard: its members, their bytes and their facts. Nothing is unpacked to disk."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import IO, Any

from PIL import Image

from mmdata.documents import DOCUMENT, MARKER
from mmdata.samples import key_uid
from mmdata.shards.facts import facts_problem
from mmdata.storage.tar import BLOCK, entries, padded

IMAGE_SIGNATURES = {"jpg": b"\xff\xd8\xff", "png": b"\x89PNG\r\n\x1a\n", "webp": b"RIFF"}
SIGNATURES = {**IMAGE_SIGNATURES, "flac": b"fLaC"}
EXTENSIONS = frozenset({*SIGNATURES, "mp4", "txt", "json"})
_FRAME = re.compile(r"\d{3}\.(jpg|png|webp)")


@dataclass(frozen=True, slots=True)
class MemberChecks:
    """What is looked at inside the members of a shard.

    Args:
        decode: decode each picture and frame, and sound and video if PyAV is installed.
        facts: each `.json` has the keys and types of `release_facts`, which releases of format 1 did not promise.
        captions: the release has generated captions.
    """

    decode: bool = False
    facts: bool = True
    captions: bool = False


def archive_problems(
    name: str, file: IO[bytes], places: Mapping[str, tuple[int, int]], checks: MemberChecks
) -> Iterator[str]:
    """Problems of the content of a shard, member by member."""
    seen: dict[str, dict[str, int]] = {}
    starts: dict[str, int] = {}
    ends: dict[str, int] = {}
    signatures: dict[str, str] = {}
    markers: dict[str, int] = {}  # key -> markers in its text
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
        if problem := _member_problem(key, ext, content, checks):
            yield f"{name}: member {entry.name}: {problem}"
        elif ext == "json":
            signatures[key] = str(json.loads(content).get("signature"))
        elif ext == "txt":
            markers[key] = content.count(MARKER.encode())
    for member in sorted(member for member, count in names.items() if count > 1):
        yield f"{name}: member {member} occurs more than once"
    for key in sorted(seen.keys() | places.keys()):
        place = (starts[key], ends[key] - starts[key]) if key in seen else None
        if place != places.get(key):
            yield f"{name}: sample {key} is at {place}, the index says {places.get(key)} (offset, length)"
        elif missing := {"txt", "json"} - seen[key].keys():
            yield f"{name}: sample {key} has no {', '.join(sorted(missing))}"
        elif key in signatures and (problem := _signature_problem(signatures[key], seen[key], markers.get(key))):
            yield f"{name}: sample {key} {problem}"
    file.seek(0, 2)
    if file.tell() != max(ends.values(), default=0) + 2 * BLOCK:
        yield f"{name}: {file.tell()} bytes, but its members end at {max(ends.values(), default=0)}"


def _signature_problem(signature: str, members: Collection[str], markers: int | None) -> str | None:
    """How the members of a sample depart from its signature; None if they do not."""
    if lacking := _lacking_kind(signature, members):
        return f"is {signature}, but contains no {lacking}"
    return _misplaced(markers, members) if DOCUMENT in signature.split("+") else None


def _lacking_kind(signature: str, members: Collection[str]) -> str | None:
    """The first kind of media that the signature of a sample names and its members lack."""
    present = {
        "image": any(ext in members for ext in IMAGE_SIGNATURES),
        "video": any(_FRAME.fullmatch(ext) for ext in members),
        "audio": "flac" in members,
        DOCUMENT: any(_FRAME.fullmatch(ext) for ext in members),
    }
    return next((kind for kind, is_present in present.items() if kind in signature.split("+") and not is_present), None)


def _misplaced(markers: int | None, members: Collection[str]) -> str | None:
    """How the pictures of a document depart from the markers in its text; None if each has one, in order."""
    pictures = sorted(int(ext[:3]) for ext in members if _FRAME.fullmatch(ext))
    if pictures == list(range(len(pictures))) and markers == len(pictures):
        return None
    return f"has {markers} markers in its text, and its pictures are numbered {pictures}"


def _member_problem(key: str, ext: str, content: bytes, checks: MemberChecks) -> str | None:
    ext = ext.rpartition(".")[2]
    if not content.startswith(SIGNATURES.get(ext, b"")) or (ext == "mp4" and content[4:8] != b"ftyp"):
        return f"its bytes are not a {ext}"
    try:
        if ext == "txt":
            content.decode("utf-8")
        if ext == "json" and (problem := _facts_problem(key, json.loads(content), checks)):
            return problem
        if checks.decode:
            _decode(ext, content)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        return f"cannot be read ({error})"
    return None


def _facts_problem(key: str, content: Any, checks: MemberChecks) -> str | None:
    if checks.facts and (problem := facts_problem(content, checks.captions)):
        return problem
    return None if (uid := content["uid"]) == key_uid(key) else f"its uid is {uid}"


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
