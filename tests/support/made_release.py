"""A small release written by hand, shard by shard: pictures, clips, sound and text, good and bad."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
import polars as pl
import pyarrow as pa
from PIL import Image

from mmdata.instruct.forms import FORMS, Record, line
from mmdata.releases.manifest import manifest_digest
from mmdata.samples import INDEX, estimate_tokens, sample_key, sample_uid
from mmdata.storage.atomic import publish_json
from mmdata.storage.tables import write_table
from mmdata.workspace.layout import Workspace

RELEASE = "00c0ffee00c0ffee"


@dataclass(frozen=True)
class Sample:
    """One sample: its caption, and its media by extension as they lie in the shard."""

    caption: str
    media: Mapping[str, bytes] = field(default_factory=dict)
    split: str = "train"
    copies: int = 1

    @property
    def uid(self) -> str:
        return sample_uid(f"https://example.org/{self.caption}", self.caption)

    @property
    def signature(self) -> str:
        kinds = {"flac": "audio", "jpg": "image", "png": "image"}
        return "+".join(sorted({"text", *(kinds.get(ext, "video") for ext in self.media)}))


def jpeg(number: int, size: tuple[int, int] = (40, 32)) -> bytes:
    """A picture of noise, another one for each number."""
    grey = np.random.default_rng(number).integers(0, 255, (6, 8, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(grey).resize(size).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def flac(wave: np.ndarray, rate: int) -> bytes:
    """Sound as FLAC. Args: wave: float32 channels,samples in [-1, 1]."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="flac") as container:
        stream = container.add_stream("flac", rate=rate, layout="stereo" if len(wave) == 2 else "mono")
        whole = np.ascontiguousarray((wave * 32767).astype(np.int16).T.reshape(1, -1))
        frame = av.AudioFrame.from_ndarray(whole, format="s16", layout=stream.layout.name)
        frame.sample_rate = rate
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def tone(hertz: float, seconds: float, rate: int = 16_000, channels: int = 1) -> np.ndarray:
    at = np.arange(round(seconds * rate)) / rate
    return np.tile(0.5 * np.sin(2 * np.pi * hertz * at).astype(np.float32), (channels, 1))


def write_release(
    root: Path, samples: Sequence[Sample], records: Sequence[Record] = (), shard_samples: int = 8
) -> Workspace:
    """Write a workspace with one release: samples in their order, so many a shard, train before validation."""
    workspace = Workspace(root)
    index: list[dict[str, Any]] = []
    shards: list[dict[str, Any]] = []
    for split in ("train", "validation"):
        ours = [(one, copy) for one in samples if one.split == split for copy in range(one.copies)]
        for start in range(0, len(ours), shard_samples):
            data, entries = _tar(ours[start : start + shard_samples])
            digest = hashlib.sha256(data).hexdigest()
            name = f"{split}-c0000-{len(shards):05d}-{digest[:12]}.tar"
            (workspace.shards_dir / name).parent.mkdir(parents=True, exist_ok=True)
            (workspace.shards_dir / name).write_bytes(data)
            index += [{**entry, "shard": name, "split": split} for entry in entries]
            shards.append({"name": name, "split": split, "sha256": digest, "bytes": len(data), "samples": len(entries)})
    folder = workspace.release_dir(RELEASE)
    write_table(folder / "index.parquet", pa.Table.from_pylist(index, schema=INDEX))
    by_uid = {one.uid: one for one in samples}
    for form, write in FORMS.items():
        for split in ("train", "validation") if records else ():
            lines = [write(one) for one in records if by_uid[one.id[:32]].split == split]
            (folder / f"instruct-{form}-{split}.jsonl").write_bytes(b"".join(map(line, lines)))
    seal(workspace, shards)
    workspace.set_latest(RELEASE)
    return workspace


def seal(workspace: Workspace, shards: list[dict[str, Any]] | None = None) -> None:
    """Write the manifest of what lies in the release's folder, whatever it is."""
    folder = workspace.release_dir(RELEASE)
    if shards is None:
        shards = json.loads((folder / "manifest.json").read_bytes())["shards"]
    names = sorted(path.name for path in folder.iterdir() if path.name != "manifest.json")
    data = {name: (folder / name).read_bytes() for name in names}
    manifest: dict[str, Any] = {
        **dict.fromkeys(("inputs", "parent", "config", "scorer", "counts", "reasons", "signatures", "cohorts")),
        "format": 1,
        "release_id": RELEASE,
        "created_at": "2026-01-02T03:04:05+00:00",
        "shards": shards,
        "files": {name: {"sha256": hashlib.sha256(d).hexdigest(), "bytes": len(d)} for name, d in data.items()},
    }
    publish_json(folder / "manifest.json", {**manifest, "digest": manifest_digest(manifest)})


def shard_of(workspace: Workspace, uid: str) -> str:
    """The name of the shard that holds a sample's first copy."""
    index = pl.read_parquet(str(workspace.release_dir(RELEASE) / "index.parquet"))
    return str(index.filter((pl.col("uid") == uid) & (pl.col("copy") == 0))["shard"][0])


def _tar(samples: Sequence[tuple[Sample, int]]) -> tuple[bytes, list[dict[str, Any]]]:
    buffer, entries = io.BytesIO(), []
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for sample, copy in samples:
            key, start = sample_key(sample.uid, copy), tar.offset
            about = json.dumps({"uid": sample.uid}).encode()
            for ext, data in {**sample.media, "txt": sample.caption.encode(), "json": about}.items():
                member = tarfile.TarInfo(f"{key}.{ext}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
            entries.append(
                {
                    "uid": sample.uid,
                    "key": key,
                    "offset": start,
                    "length": tar.offset - start,
                    "signature": sample.signature,
                    "copy": copy,
                    "repeats": sample.copies,
                    "tokens": _tokens(sample.caption),
                    "pixels": 0,
                    "frames": 0,
                    "augment": 0,
                }
            )
    return buffer.getvalue(), entries


def _tokens(caption: str) -> int:
    return int(pl.DataFrame({"caption": [caption]}).select(estimate_tokens(pl.col("caption")))["caption"][0])


WORDS = "amber birch cedar dune ember fjord grove heron iris jade kelp lark maple north ochre pearl quartz raven"


def mixed_samples(pictures: int = 36) -> list[Sample]:
    """Pictures (two undecodable, two with copies, one with a very long caption), clips, sounds, text; some held out."""
    samples, vocabulary = [], WORDS.split()
    for number in range(pictures):
        words = [vocabulary[number * step % len(vocabulary)] for step in range(1, 3 + number * 5 % 9)]
        caption = f"{' '.join(words)} no {number}" if number % 7 else f"第{number}只红色的猫坐在门前的台阶上"
        caption = caption if number != 20 else f"{number} of a long story that goes on " * 9
        data = jpeg(number) if number not in (5, 17) else b"\xff\xd8 no picture"
        split = "validation" if number % 8 == 6 else "train"
        samples.append(Sample(caption, {"jpg": data}, split, 3 if number in (2, 9) else 1))
    for number, frames in enumerate((3, 8, 11)):
        media = {f"{at:03d}.jpg": jpeg(100 * number + at) for at in range(frames)}
        if number:
            media["flac"] = flac(tone(300 + 100 * number, 0.7, 44_100, 2), 44_100)
        samples.insert(9 * number + 4, Sample(f"clip {number} of a heron", media))
    for number in range(3):
        media = {"flac": flac(tone(500 + 50 * number, 0.3 + number / 2), 16_000)}
        samples.insert(7 * number + 11, Sample(f"sound {number}", media))
    return [*samples, Sample("only words"), Sample("other words alone")]
