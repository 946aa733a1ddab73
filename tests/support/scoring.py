"""Tiny real dual encoders, generated photographs, and parts with real tars."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pyarrow as pa
import pytest
import torch
from PIL import Image

from mmdata.config import Corpus, Score
from mmdata.engine.part_run import SliceResult, publish_slice, stamp_part
from mmdata.samples import MEDIA, ROWS, sample_uid, table_of
from mmdata.score.scorer import ClipScorer
from mmdata.score.stage import score_part
from mmdata.workspace.layout import Catalog, Part, Workspace

TINY = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}
MEAN, STD = [0.48, 0.46, 0.41], [0.27, 0.26, 0.28]


def save_model(folder: Path, seed: int, **preprocess: object) -> Path:
    """A tiny CLIP with random weights, as a folder that open_clip loads by `local-dir:`."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_cfg": TINY, "preprocess_cfg": {"mean": MEAN, "std": STD, **preprocess}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    torch.manual_seed(seed)
    model = open_clip.CLIP(**TINY)
    for tensor in model.parameters():  # random towers hardly tell inputs apart; a livelier one does
        if tensor.ndim > 1:
            tensor.data.mul_(2.0)
    torch.save(model.state_dict(), folder / "open_clip_pytorch_model.bin")
    return folder


def photo(seed: int, width: int = 320, height: int = 256) -> Image.Image:
    """A picture with what photographs have: large soft shapes, edges, texture."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    soft = np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC), np.float32)
    y, x = np.mgrid[0:height, 0:width] / min(width, height)
    for _ in range(6):
        centre, radius = rng.uniform(0, 1.2, 2), rng.uniform(0.05, 0.3)
        inside = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 < radius**2
        soft[inside] = 0.4 * soft[inside] + 0.6 * rng.integers(0, 256, 3)
    soft += rng.normal(0, 6, soft.shape)
    return Image.fromarray(np.clip(soft, 0, 255).astype(np.uint8))


def encode(picture: Image.Image, kind: str = "JPEG", **settings: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **({"quality": 92} if kind == "JPEG" else {}) | settings)
    return buffer.getvalue()


@dataclass
class Sample:
    """What a test says of one row; `data` None: nothing was fetched."""

    caption: str | None
    data: bytes | None = None
    url: str = ""
    kind: str = "image"
    status: str = "success"
    problem: str | None = None
    original: tuple[int, int] | None = None
    same_as: int | None = None  # index of the sample whose bytes it shares
    media: dict = field(default_factory=dict)
    members: dict[str, bytes] = field(default_factory=dict)  # of a clip or of sound, by extension
    row: dict = field(default_factory=dict)

    def uid(self, number: int) -> str:
        return sample_uid(self.url or f"https://example.org/{number}.jpg", self.caption)


class PartMaker:
    """Writes rows and media of a part as the stages before would, with real tars and stamps."""

    def __init__(self, root: Path, score: Score, **settings: object) -> None:
        self.workspace = Workspace(str(root))
        self.corpus = Corpus.model_validate(
            {
                "workspace": str(root),
                "sources": [{"name": "web", "kind": "laion", "files": "x.parquet"}],
                "score": score.model_dump(),
                **settings,
            }
        )

    def write(self, slices: list[list[Sample]], part: str = "web-000000") -> str:
        parts = dict(self.workspace.catalog().parts)
        parts[part] = Part(part, "web", "x.parquet", 0, sum(map(len, slices)), "d")
        self.workspace.write_catalog(Catalog(parts=parts))
        stamps: dict[str, dict] = {"rows": {}, "media": {}}
        for number, samples in enumerate(slices):
            name = f"{number:04d}"
            tables = {"rows": rows_table(samples, part), "media": self._media(samples, part, name)}
            for stage, table in tables.items():
                stamps[stage][name] = publish_slice(self.workspace, part, stage, name, "f", SliceResult(table))
        for stage, slice_stamps in stamps.items():
            stamp_part(self.workspace, part, stage, "f", slice_stamps, None)
        return part

    def features(self, part: str = "web-000000", slice_name: str = "0000") -> dict[str, dict]:
        """uid -> row of a features table."""
        return {row["uid"]: row for row in self.table(part, slice_name).to_pylist()}

    def table(self, part: str = "web-000000", slice_name: str = "0000") -> pa.Table:
        from mmdata.storage.tables import read_table

        return read_table(self.workspace.table(part, "features", slice_name))

    def _media(self, samples: list[Sample], part: str, name: str) -> pa.Table:
        tar_path = Path(self.workspace.media_tar(part, name, None).path)
        tar_path.parent.mkdir(parents=True, exist_ok=True)
        first_place: dict[int, tuple[int, int]] = {}
        stored_members: dict[int, list[dict]] = {}
        with tarfile.open(tar_path, "w") as tar:
            for number, sample in enumerate(samples):
                stored = sample.members or ({} if sample.data is None else {"jpg": sample.data})
                for ext, data in stored.items():
                    header = tarfile.TarInfo(f"{sample.uid(number)}.{ext}")
                    header.size = len(data)
                    tar.addfile(header, io.BytesIO(data))
                    place = (tar.offset - -(-len(data) // 512) * 512, len(data))
                    first_place.setdefault(number, place)
                    stored_members.setdefault(number, []).append({"ext": ext, "offset": place[0], "length": place[1]})
        return table_of(
            (
                self._media_row(s, number, first_place.get(number if s.same_as is None else s.same_as))
                | ({**stored_members[number][0], "further": stored_members[number][1:] or None} if s.members else {})
                for number, s in enumerate(samples)
            ),
            MEDIA,
        )

    @staticmethod
    def _media_row(sample: Sample, number: int, place: tuple[int, int] | None) -> dict:
        row: dict = {"uid": sample.uid(number), "attempts": 1}
        if place is None:
            refused = sample.problem is not None
            return row | {"status": "refused" if refused else "failed_to_download", "error": "http_404"} | sample.media
        width, height = sample.original or (None, None)
        row |= {"status": sample.status, "offset": place[0], "length": place[1], "ext": "jpg"}
        row |= {"original_width": width, "original_height": height}
        row["sha256"] = hashlib.sha256(sample.data or b"").hexdigest()
        return row | sample.media


def rows_table(samples: list[Sample], part: str) -> pa.Table:
    return table_of(
        (
            {
                "uid": sample.uid(number),
                "source": "web",
                "part": part,
                "kind": sample.kind,
                "url": sample.url or f"https://example.org/{number}.jpg",
                "caption": sample.caption,
                "problem": sample.problem,
                "copies": 1,
                "row": number,
                **sample.row,
            }
            for number, sample in enumerate(samples)
        ),
        ROWS,
    )


PART = "web-000000"


def photo_samples(count: int, first: int = 0) -> list[Sample]:
    """Fetched pictures with captions and URLs of their own."""
    return [
        Sample(f"a photograph of thing {n}", encode(photo(n)), url=f"https://e.org/{n}.jpg")
        for n in range(first, first + count)
    ]


def clip_sample(caption: str | None, frames: Sequence[bytes], **fields: Any) -> Sample:
    """A clip of encoded frames; `members` beside them hold its sound."""
    members = {f"{number:03d}.jpg": data for number, data in enumerate(frames)}
    return Sample(caption, kind="video", members=members | fields.pop("members", {}), **fields)


def score_samples(maker: PartMaker, samples: list[Sample]) -> list[dict[str, Any]]:
    """Run the features stage on samples; a row of its table for each."""
    maker.write([samples])
    score_part(maker.corpus, maker.workspace, PART)
    features = maker.features()
    return [features[sample.uid(number)] for number, sample in enumerate(samples)]


def count_embedded(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many pictures and texts the scorer embeds from now on."""
    embedded = {"images": 0, "texts": 0}
    embed_images, embed_texts = ClipScorer.embed_images, ClipScorer.embed_texts

    def count_images(self: ClipScorer, pixels: np.ndarray) -> np.ndarray:
        embedded["images"] += len(pixels)
        return embed_images(self, pixels)

    def count_texts(self: ClipScorer, captions: list[str]) -> np.ndarray:
        embedded["texts"] += len(captions)
        return embed_texts(self, captions)

    monkeypatch.setattr(ClipScorer, "embed_images", count_images)
    monkeypatch.setattr(ClipScorer, "embed_texts", count_texts)
    return embedded


def open_clip_embeddings(folder: Path, pictures: list[bytes], captions: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Unit embeddings as open_clip's README computes them."""
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    model.eval()
    with torch.no_grad():
        stack = torch.stack([preprocess(Image.open(io.BytesIO(p)).convert("RGB")) for p in pictures])
        images, texts = model.encode_image(stack), model.encode_text(tokenizer(captions))
    return tuple(torch.nn.functional.normalize(f.float(), dim=-1).numpy() for f in (images, texts))
