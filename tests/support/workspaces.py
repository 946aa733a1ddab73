"""Workspaces whose parts are finished, made without network or model: what selection and shards start from."""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmdata.config import Corpus
from mmdata.config.load import parse_corpus
from mmdata.engine.part_run import SliceResult, publish_slice, stamp_part
from mmdata.engine.stage_fingerprints import features_input, rows_input, stage_settings
from mmdata.fingerprint import fingerprint
from mmdata.instruct.stage import write_instructions
from mmdata.publish.release import publish_release
from mmdata.samples import FEATURES, MEDIA, ROWS, sample_uid, table_of
from mmdata.select.stage import select_samples
from mmdata.shards.stage import write_shards
from mmdata.storage.atomic import atomic_path
from mmdata.workspace.layout import Catalog, Part, Workspace

SELECT_ALL = {
    "filter": {},
    "dedup": {"phash_bits": None, "semantic_eps": None},
    "balance": {"max_ratio": None},
    "oversample": {"max_repeats": 1},
}
UNCAPTIONED = 1_000  # from this number on, samples have no caption
SCORER = b'{"name": "test scorer", "fingerprint": "0123"}'


@dataclass(frozen=True)
class Built:
    """A workspace, its corpus, and by uid the caption and the stored bytes that must come out again."""

    corpus: Corpus
    workspace: Workspace
    captions: dict[str, str] = field(default_factory=dict)
    pictures: dict[str, bytes] = field(default_factory=dict)


def corpus_of(root: str, **sections: Any) -> Corpus:
    source = {"name": "web", "kind": "laion", "files": "inbox/*.parquet"}
    sections = {"select": SELECT_ALL, "shards": {"shard_mb": 0.02, "validation_fraction": 0.1}, **sections}
    return parse_corpus({"workspace": root, "sources": [source], "score": {"model": "demo"}, **sections})


def build(root: str, parts: Mapping[str, Sequence[int]], **sections: Any) -> Built:
    """Finish parts of numbered samples: sample 7 is the same wherever it stands.

    Args:
        parts: part name -> numbers of its samples; two slices a part.
    """
    built = Built(corpus_of(root, **sections), Workspace(root))
    add_parts(built, parts)
    return built


def add_parts(built: Built, parts: Mapping[str, Sequence[int]]) -> None:
    """Finish further parts, or finish parts anew with other samples."""
    known = dict(built.workspace.catalog().parts)
    for name, numbers in parts.items():
        known[name] = Part(name, "web", f"inbox/{name}.parquet", 0, len(numbers), fingerprint(list(numbers)))
    built.workspace.write_catalog(Catalog(parts=known))
    for name, numbers in parts.items():
        finish_part(built, known[name], numbers)


def uid_of(number: int) -> str:
    """The uid of a numbered sample."""
    return str(_sample(number)["uid"])


def release(built: Built) -> str:
    """Run the publish stages; the id of the release."""
    select_samples(built.corpus, built.workspace)
    write_shards(built.corpus, built.workspace)
    write_instructions(built.corpus, built.workspace)
    publish_release(built.corpus, built.workspace)
    return str(built.workspace.latest())


def finish_part(built: Built, part: Part, numbers: Sequence[int]) -> None:
    """Write the tables and stamps of all stages of a part, of so numbered samples."""
    workspace = built.workspace
    halves = {f"{i:04d}": list(numbers[i::2]) for i in range(2)}
    stamps: dict[str, dict[str, Any]] = {"rows": {}, "media": {}, "features": {}}
    for name, mine in halves.items():
        samples = sorted((_sample(n) for n in mine), key=lambda s: s["uid"])
        offsets = _write_tar(workspace, part.name, name, samples)
        for sample in samples:
            built.captions[sample["uid"]], built.pictures[sample["uid"]] = sample["caption"], sample["picture"]
        rows = [{**s, "part": part.name, "source": "web", "kind": "image", "copies": 1} for s in samples]
        media = [
            {
                **s,
                "status": "success",
                "attempts": 1,
                "ext": "jpg",
                "offset": offsets[s["uid"]],
                "length": len(s["picture"]),
            }
            for s in samples
        ]
        tables = {"rows": table_of(map(_only(ROWS), rows), ROWS), "media": table_of(map(_only(MEDIA), media), MEDIA)}
        features = table_of(map(_only(FEATURES), samples), FEATURES)
        tables["features"] = features.replace_schema_metadata({b"scorer": SCORER})
        for stage, table in tables.items():
            stamps[stage][name] = publish_slice(workspace, part.name, stage, name, "test", SliceResult(table))
    stamp_stages(built, part, stamps)


def stamp_stages(built: Built, part: Part, stamps: Mapping[str, dict[str, Any]]) -> None:
    """Stamp each stage of a part whose slices are published."""
    upstream = rows_input(part)
    digests: dict[str, str] = {}
    for stage in ("rows", "media", "features"):
        if stage == "features":
            upstream = features_input(digests["rows"], digests["media"])
        expected = fingerprint(stage_settings(built.corpus, part, stage), upstream)
        digests[stage] = stamp_part(built.workspace, part.name, stage, expected, stamps[stage], None).digest
        upstream = digests[stage]


def _only(schema: Any) -> Any:
    return lambda record: {name: record[name] for name in schema.names if name in record}


@cache
def _sample(number: int) -> dict[str, Any]:
    numbers = np.random.default_rng(number)
    buffer = io.BytesIO()
    grey = numbers.integers(0, 255, (6, 8, 3)).astype(np.uint8)
    Image.fromarray(grey).resize((32, 24)).save(buffer, "JPEG", quality=80)
    picture = buffer.getvalue()
    url = f"https://example.org/{number}.jpg"
    caption = None if number >= UNCAPTIONED else f"picture number {number} of a sea — 海 “quoted”"
    vector = numbers.normal(size=8)
    return {
        "uid": sample_uid(url, caption),
        "url": url,
        "caption": caption,
        "row": number,
        "extra": '{"LICENSE": "CC0"}',
        "picture": picture,
        "sha256": hashlib.sha256(picture).hexdigest(),
        "bytes": len(picture),
        "width": 32,
        "height": 24,
        "original_width": 32,
        "original_height": 24,
        "clip_score": float(np.float32(numbers.random())),
        "embedding": (vector / np.linalg.norm(vector)).astype(np.float16),
        "phash": int(numbers.integers(0, 2**63)),
        "lang": "en",
        "lang_prob": 1.0,
        "n_words": 6,
        "n_chars": len(caption or ""),
        "aspect": 4 / 3,
        "sharpness": 10.0,
    }


def _write_tar(workspace: Workspace, part: str, name: str, samples: list[dict[str, Any]]) -> dict[str, int]:
    offsets: dict[str, int] = {}
    with atomic_path(workspace.media_tar(part, name, None)) as draft, tarfile.open(draft, "w") as archive:
        for sample in samples:
            info = tarfile.TarInfo(f"{sample['uid']}.jpg")
            info.size = len(sample["picture"])
            offsets[sample["uid"]] = archive.offset + tarfile.BLOCKSIZE
            archive.addfile(info, io.BytesIO(sample["picture"]))
    return offsets


def copy_of(built: Built, root: Path, **sections: Any) -> Built:
    """The same workspace in another local folder; `sections` are those of its corpus.yaml."""
    shutil.copytree(built.workspace.root.path, root)
    return Built(corpus_of(str(root), **sections), Workspace(str(root)), dict(built.captions), dict(built.pictures))
