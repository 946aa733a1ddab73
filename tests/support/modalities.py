"""A finished workspace of every signature, made without network or model: clips with frames and sound, and the rest."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmdata.config.load import parse_corpus
from mmdata.engine.part_run import SliceResult, publish_slice
from mmdata.fingerprint import fingerprint
from mmdata.media.flac import flac
from mmdata.samples import FEATURES, MEDIA, ROWS, sample_uid, table_of
from mmdata.storage.atomic import atomic_path
from mmdata.workspace.layout import Catalog, Part, Workspace
from tests.support.workspaces import SCORER, SELECT_ALL, Built, stamp_stages

FRAMES = 4
VIDEOS = 12
CLIPS = 5  # of a video
STEPS = ("peel the onion", "chop it finely", "fry it in butter", "add the cold stock", "stir and serve hot")


def corpus_at(root: Path | str, **sections: Any) -> Any:
    """A corpus over pictures, videos, sound and texts."""
    sources = [
        {"name": "web", "kind": "laion", "files": "inbox/*.parquet"},
        {"name": "how", "kind": "howto100m", "files": "inbox/*.csv", "captions": "inbox/raw_caption.json"},
        {"name": "wav", "kind": "audio", "files": "inbox/a.csv", "columns": {"url": "url", "caption": "text"}},
        {"name": "txt", "kind": "text", "files": "inbox/t.csv", "columns": {"caption": "text"}},
    ]
    base = {"select": SELECT_ALL, "shards": {"shard_mb": 0.1, "validation_fraction": 0.2}, "score": {"model": "demo"}}
    return parse_corpus({"workspace": str(root), "sources": sources, **base, **sections})


def build(root: Path | str, **sections: Any) -> Built:
    """Finish parts of 30 pictures (three with a voice), 60 clips (half of the videos mute), 12 sounds and 10 texts."""
    built = Built(corpus_at(root, **sections), Workspace(root))
    parts = {
        "how-000000": [clip(video, number) for video in range(VIDEOS // 2) for number in range(CLIPS)],
        "how-000001": [clip(video, number) for video in range(VIDEOS // 2, VIDEOS) for number in range(CLIPS)],
        "txt-000000": [text(number) for number in range(10)],
        "wav-000000": [sound(number) for number in range(12)],
        "web-000000": [picture(number) for number in range(30)],
    }
    catalog = {name: Part(name, name[:3], "inbox/x", 0, len(own), fingerprint(name)) for name, own in parts.items()}
    built.workspace.write_catalog(Catalog(parts=catalog))
    for name, samples in parts.items():
        finish(built, catalog[name], samples)
    return built


def picture(number: int) -> dict[str, Any]:
    spoken = number % 10 == 0
    url, caption = f"https://example.org/{number}.jpg", f"a picture of dish number {number} on a table"
    members = [("jpg", jpeg(number))] + ([("flac", tone(2.0, 300 + number))] if spoken else [])
    own = {"kind": "image", "url": url, "caption": caption, "width": 32, "height": 24, "original_width": 320}
    voice = {"audio_s": 2.0, "synthetic": "audio"} if spoken else {}
    return sample(members, number, own | voice | {"original_height": 240})


def clip(video: int, number: int) -> dict[str, Any]:
    """A clip of ten seconds; even videos have sound."""
    url, start = f"https://www.youtube.com/watch?v=video{video:06d}", 10.0 * number
    caption = f"{STEPS[number % len(STEPS)]} for dish {video}"
    extra = {
        "video_id": f"video{video:06d}",
        "category_1": "Food",
        "captions": [[start, start + 5, caption], [start + 5, start + 10, ""]],
    }
    members = [(f"{at:03d}.jpg", jpeg(1000 * (video + 1) + 10 * number + at)) for at in range(FRAMES)]
    own = {"kind": "video", "url": url, "caption": caption, "start_s": start, "end_s": start + 10, "extra": extra}
    seen = {"width": 32, "height": 24, "original_width": 320, "original_height": 240, "duration_s": 10.0, "fps": 25.0}
    times = {"frame_times_s": [start + 1.25 + 2.5 * at for at in range(FRAMES)]}
    heard = {}
    if video % 2 == 0:
        members.append(("flac", tone(10.0, 200 + 40 * video + 10 * number)))
        heard = {"audio_s": 10.0}
    return sample(members, 10_000 + CLIPS * video + number, own | seen | times | heard)


def sound(number: int) -> dict[str, Any]:
    """Speech; every third one has a transcript by machine alone."""
    url, said = f"https://example.org/{number}.wav", f"a voice that says sentence {number}"
    words = {"caption": None, "transcript": said} if number % 3 == 0 else {"caption": said}
    heard = {"kind": "audio", "url": url, "duration_s": 3.0, "audio_s": 3.0, "speech_ratio": 0.9}
    return sample([("flac", tone(3.0, 500 + 30 * number))], 20_000 + number, words | heard)


def text(number: int) -> dict[str, Any]:
    extra = {"question": f"how many onions are in recipe {number}?", "answer": f"{number} onions"}
    return sample([], 30_000 + number, {"kind": "text", "url": None, "caption": f"recipe {number}", "extra": extra})


def sample(members: Sequence[tuple[str, bytes]], number: int, own: dict[str, Any]) -> dict[str, Any]:
    """All columns of rows, media and features, and the stored members."""
    data = b"".join(content for _, content in members)
    pictured = own["kind"] in ("image", "video")
    vector = np.random.default_rng(number).normal(size=8)
    uid = sample_uid(own["url"], own.get("caption"), own.get("start_s"), own.get("end_s"))
    return {
        "uid": uid,
        "members": members,
        "row": number,
        "copies": 1,
        "status": "success",
        "attempts": 1,
        "sha256": hashlib.sha256(data).hexdigest() if members else None,
        "clip_score": 0.3 if pictured else None,
        "embedding": (vector / np.linalg.norm(vector)).astype(np.float16) if pictured else None,
        "lang": "en",
        "lang_prob": 1.0,
        "n_words": 6,
        "n_chars": 30,
        **own,
        "extra": json.dumps(own.get("extra", {})),
    }


@cache
def jpeg(number: int) -> bytes:
    grey = np.random.default_rng(number).integers(0, 255, (6, 8, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(grey).resize((32, 24)).save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


@cache
def tone(seconds: float, hertz: float) -> bytes:
    at = np.arange(round(seconds * 16_000)) / 16_000
    return flac((0.4 * np.sin(2 * np.pi * hertz * at)).astype(np.float32))


def finish(built: Built, part: Part, samples: Sequence[dict[str, Any]]) -> None:
    """Write a part of two slices, a video's clips in one, with all its stamps."""
    halves: dict[str, list[dict[str, Any]]] = {"0000": [], "0001": []}
    for one in samples:
        halves[f"{int(hashlib.sha256((one['url'] or one['uid']).encode()).hexdigest(), 16) % 2:04d}"].append(one)
    stamps: dict[str, dict[str, Any]] = {"rows": {}, "media": {}, "features": {}}
    for name, own in halves.items():
        stored = _write_tar(built.workspace, part.name, name, own)
        rows = [one | {"part": part.name, "source": part.source} | stored[one["uid"]] for one in own]
        for one in own:
            built.captions[one["uid"]] = one.get("caption") or one.get("transcript") or ""
        tables = {}
        for stage, schema in (("rows", ROWS), ("media", MEDIA), ("features", FEATURES)):
            known = [{column: row[column] for column in schema.names if column in row} for row in rows]
            tables[stage] = table_of(known, schema)
        tables["features"] = tables["features"].replace_schema_metadata({b"scorer": SCORER})
        for stage, table in tables.items():
            stamps[stage][name] = publish_slice(built.workspace, part.name, stage, name, "test", SliceResult(table))
    stamp_stages(built, part, stamps)


def _write_tar(workspace: Workspace, part: str, name: str, own: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """uid -> ext, offset, length and further."""
    stored: dict[str, dict[str, Any]] = {}
    with atomic_path(workspace.media_tar(part, name, None)) as draft, tarfile.open(draft, "w") as archive:
        for one in sorted(own, key=lambda row: row["uid"]):
            found = []
            for ext, data in one["members"]:
                info = tarfile.TarInfo(f"{one['uid']}.{ext}")
                info.size = len(data)
                found.append({"ext": ext, "offset": archive.offset + 512, "length": len(data)})
                archive.addfile(info, io.BytesIO(data))
            first = found[0] if found else dict.fromkeys(("ext", "offset", "length"))
            stored[one["uid"]] = {**first, "further": found[1:] or None}
    return stored
