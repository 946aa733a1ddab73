"""Scoring a slice, from its tar to its features table, against the loop of open_clip's README in a DataLoader."""

from __future__ import annotations

import functools
import io
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.harness import Row, compare, cores, measure, start_clock
from mmdata.config import Score
from mmdata.engine.part_run import SliceResult, publish_slice
from mmdata.samples import MEDIA, ROWS, sample_uid, table_of
from mmdata.score.languages import detect_languages
from mmdata.score.scorer import ClipScorer, load_scorer
from mmdata.score.stage import score_slice
from mmdata.workspace.layout import Workspace

PART, SLICE = "bench-000000", "0000"
BATCH = 64
GOAL = 1.3
WORDS = "a the red old small wooden house dog cat street market river beside under with two people light morning"


def run(quick: bool) -> list[Row]:
    """Two sizes of pictures with the offline scorer, one size with ViT-B-32 and random weights.

    Each is compared with the plain loop, and with the rate of the model alone.
    """
    count, rounds = (48, 1) if quick else (500, 3)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="mmdata-bench-") as folder:
        demo = Score(model="demo", device="cpu", batch_size=BATCH)
        for side in (256, 640):
            corpus = write_pictures(Path(folder) / str(side), count, side)
            rows += _compare_with_both(f"{side} px, offline scorer", corpus, demo, rounds)
        vit = random_vit(Path(folder))
        few = write_pictures(Path(folder) / "few", 16 if quick else 128, 256)
        rows += _compare_with_both("256 px, ViT-B-32", few, vit, rounds)
    return rows


def _compare_with_both(name: str, corpus: Path, score: Score, rounds: int) -> list[Row]:
    ours: Any = functools.partial(measure, score_tar, str(corpus), score)
    loop = compare(
        f"score {name}",
        "pictures/s",
        ours,
        functools.partial(measure, score_with_open_clip, str(corpus), score),
        rounds=rounds,
        goal=GOAL,
        note="peer: PIL + open_clip preprocess in a DataLoader, a worker per core; ours also hashes, detects language",
    )
    alone = compare(
        f"score {name}: share of the model's rate",
        "pictures/s",
        ours,
        functools.partial(measure, model_alone, str(corpus), score),
        rounds=rounds,
        note="peer: the same towers on pixels and captions in memory",
    )
    return [loop, alone]


def score_tar(corpus: str, score: Score) -> float:
    """Our side: one slice, from tables and tar to the features table."""
    load_scorer(score)
    detect_languages(["a warm-up"])
    start_clock()
    result = score_slice(Workspace(f"{corpus}/workspace"), PART, score, SLICE)
    assert result.counts["scored"] == result.table.num_rows
    return result.table.num_rows


def score_with_open_clip(corpus: str, score: Score) -> float:
    """The peer: https://github.com/mlfoundations/open_clip#usage, over a DataLoader."""
    import torch
    from torch.utils.data import DataLoader

    model, preprocess, tokenizer = _plain_model(score)
    paths, captions = _read_pairs(corpus)
    data: Any = _Pairs(paths, captions, preprocess, tokenizer)
    start_clock()
    scores = []
    with torch.no_grad():
        for images, texts in DataLoader(data, batch_size=BATCH, num_workers=cores()):
            image_features, text_features = model.encode_image(images), model.encode_text(texts)
            image_features /= image_features.norm(dim=-1, keepdim=True)
            text_features /= text_features.norm(dim=-1, keepdim=True)
            scores.append((image_features * text_features).sum(-1))
    return len(torch.cat(scores))


def model_alone(corpus: str, score: Score) -> float:
    """The upper bound: random pixels and the captions, without reading or decoding."""
    scorer: ClipScorer = load_scorer(score)
    _, captions = _read_pairs(corpus)
    pixels = np.random.default_rng(0).integers(0, 256, (BATCH, *scorer.preprocess.size, 3), dtype=np.uint8)
    start_clock()
    scorer.embed_texts(captions)
    for start in range(0, len(captions), BATCH):
        scorer.embed_images(pixels[: len(captions) - start])
    return len(captions)


class _Pairs:
    """A usual map-style dataset."""

    def __init__(self, paths: list[Path], captions: list[str], preprocess: Any, tokenizer: Any) -> None:
        self.paths, self.captions, self.preprocess, self.tokenizer = paths, captions, preprocess, tokenizer

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, at: int) -> tuple[Any, Any]:
        return self.preprocess(Image.open(self.paths[at]).convert("RGB")), self.tokenizer([self.captions[at]])[0]


def _plain_model(score: Score) -> tuple[Any, Any, Any]:
    import open_clip

    if score.model == "demo":
        from mmdata.score.offline import build

        return build()
    model, _, preprocess = open_clip.create_model_and_transforms(score.model, pretrained=score.pretrained)
    return model.eval(), preprocess, open_clip.get_tokenizer(score.model)


def random_vit(folder: Path) -> Score:
    """ViT-B-32 with random weights, as a checkpoint file: as fast as the real one, without a download."""
    import open_clip
    import torch

    checkpoint = folder / "random.pt"
    torch.save(open_clip.create_model("ViT-B-32").state_dict(), checkpoint)
    return Score(model="ViT-B-32", pretrained=str(checkpoint), device="cpu", batch_size=BATCH)


def write_pictures(folder: Path, count: int, side: int) -> Path:
    """Write the same JPEGs twice: as files for the peer, and as a slice of a workspace for our side."""
    rng = np.random.default_rng(side)
    (folder / "files").mkdir(parents=True)
    workspace = Workspace(str(folder / "workspace"))
    rows: list[dict[str, Any]] = []
    media: list[dict[str, Any]] = []
    blobs: dict[str, bytes] = {}
    for number in range(count):
        caption = " ".join(rng.choice(WORDS.split(), rng.integers(4, 16))) + f" {number}"
        uid = sample_uid(f"https://example.org/{number}", caption)
        blobs[uid] = photo(rng, side)
        rows.append({"uid": uid, "caption": caption, "kind": "image", "source": "bench", "part": PART, "copies": 1})
        rows[-1] |= {"row": number, "url": f"https://example.org/{number}"}
    tar_path = Path(workspace.media_tar(PART, SLICE, None).path)
    tar_path.parent.mkdir(parents=True)
    captions = {row["uid"]: row["caption"] for row in rows}
    with tarfile.open(tar_path, "w") as tar:
        for uid in sorted(blobs):
            (folder / "files" / f"{uid}.jpg").write_bytes(blobs[uid])
            (folder / "files" / f"{uid}.txt").write_text(captions[uid])
            header = tarfile.TarInfo(f"{uid}.jpg")
            header.size = len(blobs[uid])
            media.append({"uid": uid, "status": "success", "attempts": 1, "offset": tar.offset + 512})
            media[-1] |= {"length": header.size, "ext": "jpg", "sha256": uid}
            tar.addfile(header, io.BytesIO(blobs[uid]))
    publish_slice(workspace, PART, "rows", SLICE, "f", SliceResult(table_of(rows, ROWS)))
    publish_slice(workspace, PART, "media", SLICE, "f", SliceResult(table_of(media, MEDIA)))
    return folder


def photo(rng: np.random.Generator, side: int) -> bytes:
    """Soft shapes, edges and grain at 4:3: about the bytes a pixel that photographs take."""
    width, height = side * 4 // 3, side
    soft = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    detail = Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)).resize((width, height))
    pixels = 0.75 * np.asarray(soft, np.float32) + 0.2 * np.asarray(detail, np.float32)
    pixels += rng.normal(0, 3, pixels.shape)
    buffer = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def _read_pairs(corpus: str) -> tuple[list[Path], list[str]]:
    paths = sorted(Path(corpus, "files").glob("*.jpg"))
    return paths, [path.with_suffix(".txt").read_text() for path in paths]
