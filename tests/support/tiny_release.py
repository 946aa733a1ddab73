"""A small but whole workspace with a draft release: real pictures, real tars, tables of the real schemas."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
from PIL import Image
from upath import UPath

from mmdata.config import Corpus
from mmdata.config.load import parse_corpus
from mmdata.releases.draft import Draft, read_draft, release_inputs, write_draft
from mmdata.samples import FEATURES, INDEX, MEDIA, ROWS, SELECTION, estimate_tokens, sample_key, sample_uid, table_of
from mmdata.storage.atomic import publish_json
from mmdata.storage.tables import write_table
from mmdata.workspace.layout import Catalog, Part, PartStamp, SliceStamp, Workspace

RELEASE = "00c0ffee00c0ffee"
DIM = 24
KINDS = ("red circle", "blue square", "green hill", "yellow boat", "old stone bridge")
EVIL = (
    "<script>alert('caption')</script> a red circle",
    "<image> of a cat beside an <IMAGE> of a dog",
    "first line\nsecond line\u2028third \x00 line with {question} in braces",
    "一只红色的猫坐在门前的台阶上",
    '"quoted" & <b>bold</b> \\ text $x$',
)
VOCABULARY = """
amber birch cedar dune ember fjord grove heron iris jade kelp lark maple north ochre pearl quartz raven sable tide
umber vale wren yarrow zinc acorn bronze copper delta eagle flint granite harbour island juniper kiln lantern
"""
LONG = "a very long description that goes on, " * 8


@dataclass(frozen=True)
class Tiny:
    """The workspace, its corpus, and what lies in it by uid."""

    corpus: Corpus
    workspace: Workspace
    folder: UPath
    split: dict[str, str]
    caption: dict[str, str]
    picture: dict[str, bytes]


def build(root: Path, samples: int = 160, seed: int = 0, **instruct: object) -> Tiny:
    """Write a workspace of two parts with two slices each; every eighth sample is dropped, every tenth repeated."""
    corpus = parse_corpus(
        {
            "workspace": str(root),
            "sources": [{"name": "web", "kind": "laion", "files": str(root / "inbox" / "*.parquet")}],
            "score": {"model": "demo"},
            "instruct": {
                "tasks": ["caption", "detailed_caption", "match", "reference_image", "text_qa", "text_to_image"],
                **instruct,
            },
        }
    )
    workspace = Workspace(root)
    numbers = np.random.default_rng(seed)
    centres = numbers.normal(size=(len(KINDS), DIM))
    rows, media, features, selection, pictures = [], [], [], [], {}
    for number in range(samples):
        kind = number % len(KINDS)
        caption = EVIL[number] if number < len(EVIL) else f"{KINDS[kind]} {_words(number)} no {number}"
        caption = f"{LONG}{number}" if number % 13 == 12 else caption
        uid = sample_uid(f"https://example.org/{number}.jpg", caption)
        part, slice_name = f"web-{number % 2:06d}", f"{number // 2 % 2:04d}"
        vector = centres[kind] + 0.35 * numbers.normal(size=DIM)
        picture = _picture(numbers, kind)
        pictures[uid] = picture
        dropped = number % 8 == 7
        score = float(np.float32(0.2 + 0.2 * numbers.random()))
        where = {"uid": uid, "part": part, "slice": slice_name}
        extra = {"LICENSE": "?"}
        if number % 9 == 0:
            extra |= {"Question": f"What is {number} plus one?", "answer": str(number + 1)}
        if number % 27 == 1:
            extra |= {"question": "What is in the picture?", "answer": "a boat"}
        rows.append(
            where
            | {
                "source": "web",
                "kind": "image",
                "url": f"https://example.org/{number}.jpg",
                "caption": caption,
                "copies": 1,
                "row": number,
                "extra": json.dumps(extra),
            }
        )
        media.append(
            where
            | {
                "status": "success",
                "attempts": 1,
                "sha256": hashlib.sha256(picture).hexdigest(),
                "bytes": len(picture),
                "width": 48,
                "height": 40,
                "original_width": 480,
                "original_height": 400,
                "ext": "jpg",
                "picture": picture,
            }
        )
        features.append(
            where
            | {
                "clip_score": score,
                "embedding": _unit(vector),
                "text_embedding": _unit(vector - 0.8 * centres[kind]),  # captions differ more than pictures
                "lang": "zh" if number == 3 else "en",
                "lang_prob": 0.95,
                "n_words": len(caption.split()),
            }
        )
        selection.append(
            where
            | {
                "copies": 1,
                "signature": "image+text",
                "clip_score": score,
                "keep": not dropped,
                "reason": ("duplicate:phash" if number % 16 == 7 else "filter:clip_score") if dropped else None,
                "duplicate_of": rows[0]["uid"] if number % 16 == 7 else None,
                "cluster": kind,
                "concept": f"c{kind}|image+text",
                "rate": 1.0,
                "repeats": 0 if dropped else (3 if number % 10 == 0 else 1),
                "split": None if dropped else ("validation" if number % 5 == 4 else "train"),
            }
        )
    _write_parts(workspace, rows, media, features)
    folder = workspace.release_dir(RELEASE)
    write_table(folder / "selection.parquet", table_of(selection, SELECTION))
    captions = {row["uid"]: row["caption"] for row in rows}
    shards = _write_shards(workspace, selection, captions, pictures)
    publish_json(folder / "shards.json", {"release_id": RELEASE, "shards": shards})
    kept = [one for one in selection if one["keep"]]
    parts = ("web-000000", "web-000001")
    counts = {"rows": samples, "kept": len(kept)}
    reasons = {"filter:clip_score": samples - len(kept)}
    draft = Draft(RELEASE, release_inputs(corpus, workspace, parts), None, parts, {}, counts, reasons)
    write_draft(workspace, draft)
    return Tiny(corpus, workspace, folder, {one["uid"]: one["split"] for one in kept}, captions, pictures)


def publish(tiny: Tiny) -> None:
    """Turn the draft into a release: write its manifest and `latest`."""
    shards = json.loads((tiny.folder / "shards.json").read_bytes())["shards"]
    files = {
        path.name: {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "bytes": path.stat().st_size}
        for path in sorted(tiny.folder.iterdir())
        if path.is_file()
    }
    draft = read_draft(tiny.workspace)
    manifest = {
        "format": 1,
        "release_id": RELEASE,
        "inputs": draft.inputs,
        "parent": None,
        "created_at": "2026-01-02T03:04:05+00:00",
        "config": tiny.corpus.model_dump(mode="json"),
        "scorer": {"name": "demo (small offline scorer)", "fingerprint": "f" * 16},
        "counts": draft.counts,
        "reasons": draft.reasons,
        "signatures": {"image+text": {"samples": sum(s["samples"] for s in shards), "unique": len(tiny.split)}},
        "cohorts": [],
        "shards": shards,
        "files": files,
        "digest": "d" * 16,
    }
    publish_json(tiny.folder / "manifest.json", manifest)
    tiny.workspace.set_latest(RELEASE)


def _unit(vector: np.ndarray) -> np.ndarray:
    return (vector / np.linalg.norm(vector)).astype(np.float16)


def _words(number: int) -> str:
    """Four words that few other captions share."""
    words = VOCABULARY.split()
    return " ".join(words[number * step % len(words)] for step in (7, 11, 13, 17))


def _picture(numbers: np.random.Generator, kind: int) -> bytes:
    base = np.zeros((40, 48, 3), np.float64) + numbers.integers(40, 200, 3)
    base[8:32, 8:40, kind % 3] += np.linspace(0, 90, 32)
    buffer = io.BytesIO()
    Image.fromarray(base.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _write_parts(workspace: Workspace, rows: list[dict], media: list[dict], features: list[dict]) -> None:
    parts: dict[str, Part] = {}
    for part in ("web-000000", "web-000001"):
        parts[part] = Part(part, "web", "inbox/a.parquet", 0, len(rows), "0" * 64)
        for name in ("0000", "0001"):
            ours = [
                [one for one in table if (one["part"], one["slice"]) == (part, name)]
                for table in (rows, media, features)
            ]
            with _tar(workspace.media_tar(part, name, None)) as tar:
                for one in sorted(ours[1], key=lambda one: one["uid"]):
                    one["offset"] = tar.offset + 512
                    one["length"] = len(one["picture"])
                    _add(tar, f"{one['uid']}.jpg", one["picture"])
            for stage, table, schema in zip(("rows", "media", "features"), ours, (ROWS, MEDIA, FEATURES), strict=True):
                plain = [{key: value for key, value in one.items() if key in schema.names} for one in table]
                made = table_of(plain, schema)
                if stage == "features":
                    made = made.replace_schema_metadata(
                        {"scorer": json.dumps({"name": "demo (small offline scorer)", "fingerprint": "f" * 16})}
                    )
                write_table(workspace.table(part, stage, name), made)
                workspace.write_slice_stamp(part, stage, name, SliceStamp("0" * 16, "0" * 16, len(table)))
        for stage in ("rows", "media", "features"):
            count = sum(one["part"] == part for one in rows)
            workspace.write_part_stamp(part, stage, PartStamp("0" * 16, "0" * 16, ("0000", "0001"), count))
    workspace.write_catalog(Catalog({}, parts))


def _write_shards(
    workspace: Workspace, selection: list[dict], captions: dict[str, str], pictures: dict[str, bytes]
) -> list[dict]:
    index: list[dict] = []
    shards: list[dict] = []
    for split in ("train", "validation"):
        draft = workspace.shards_dir / "draft.tar"
        entries = []
        with _tar(draft) as tar:
            for copy in range(3):
                for one in selection:
                    if one["split"] != split or copy >= one["repeats"]:
                        continue
                    uid, key, start = one["uid"], sample_key(one["uid"], copy), tar.offset
                    _add(tar, f"{key}.jpg", pictures[uid])
                    _add(tar, f"{key}.txt", captions[uid].encode())
                    _add(tar, f"{key}.json", json.dumps({"uid": uid, "split": split}).encode())
                    entries.append(
                        {
                            key_: one[key_]
                            for key_ in ("uid", "signature", "split", "repeats", "clip_score", "cluster", "concept")
                        }
                        | {
                            "key": key,
                            "offset": start,
                            "length": tar.offset - start,
                            "copy": copy,
                            "pixels": 48 * 40,
                            "frames": 0,
                            "augment": 0,
                        }
                    )
        data = draft.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        name = f"{split}-c0000-00000-{digest[:12]}.tar"
        draft.rename(workspace.shards_dir / name)
        tokens = pl.DataFrame({"c": [captions[one["uid"]] for one in entries]}, schema={"c": pl.String}).select(
            estimate_tokens(pl.col("c"))
        )["c"]
        index += [one | {"shard": name, "tokens": count} for one, count in zip(entries, tokens, strict=True)]
        shards.append(
            {
                "name": name, "split": split, "cohort": "c0000", "bucket": 0, "sha256": digest, "bytes": len(data),
                "samples": len(entries), "recipe": "0" * 16,
            }
        )  # fmt: skip
    table = pa.Table.from_pylist(index, schema=INDEX).sort_by([("shard", "ascending"), ("offset", "ascending")])
    write_table(workspace.release_dir(RELEASE) / "index.parquet", table)
    return shards


def _tar(path: UPath) -> tarfile.TarFile:
    path.parent.mkdir(parents=True, exist_ok=True)
    return tarfile.open(str(path), "w", format=tarfile.USTAR_FORMAT)


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
