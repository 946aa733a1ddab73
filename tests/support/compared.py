"""A scored workspace of pairs that a linear head can learn, some with wrong captions."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import yaml

from mmdata.config import Corpus
from mmdata.config.load import load_corpus
from mmdata.releases.manifest import REQUIRED
from mmdata.samples import INDEX
from mmdata.storage.atomic import publish_json
from mmdata.storage.tables import write_table
from mmdata.workspace.layout import Workspace
from tests.support.selecting import build, corpus_for, sample

IMAGE_DIM, TEXT_DIM, MEANING_DIM = 24, 16, 20


@dataclass(frozen=True)
class Compared:
    """A workspace, and what is known of its pairs.

    Args:
        uids: of all pairs. is_true: which of them have their own caption.
        truth: table with uid, true_pair, concept.
    """

    config_path: Path
    uids: list[str]
    is_true: np.ndarray
    truth: Path

    @property
    def corpus(self) -> Corpus:
        return load_corpus(self.config_path)

    @property
    def workspace(self) -> Workspace:
        return Workspace(self.corpus.workspace)

    def table(self, path: Path, chosen: np.ndarray) -> Path:
        """Write the uids of some pairs as a table."""
        pl.DataFrame({"uid": [self.uids[at] for at in np.flatnonzero(chosen)]}).write_parquet(path)
        return path


def make_compared(root: Path, pairs: int = 600, shuffled: float = 0.6, seed: int = 0) -> Compared:
    """Pairs whose picture and caption vectors are two linear views of one meaning; a share has another's caption."""
    rng = np.random.default_rng(seed)
    meaning = rng.normal(size=(pairs, MEANING_DIM))
    image = _view(meaning, IMAGE_DIM, rng)
    text = _view(meaning, TEXT_DIM, rng)
    caption_of = np.arange(pairs)
    wrong = rng.permutation(pairs)[: int(shuffled * pairs)]
    caption_of[wrong] = np.roll(wrong, 1)
    samples = []
    for at in range(pairs):
        score = 0.3 if caption_of[at] == at else 0.1
        own = {"extra": json.dumps({"group": f"g{at // 2}"}), "clip_score": score + rng.normal(scale=0.02)}
        vectors = {"embedding": image[at], "text_embedding": text[caption_of[at]]}
        samples.append(sample(at, caption=f"a picture of {caption_of[at]}", **vectors, **own))
    root.mkdir(parents=True, exist_ok=True)
    corpus = corpus_for(root, score={"model": "demo"}, compare={"steps": 60, "batch_size": 64, "seeds": 3})
    half = pairs // 2
    build(corpus, {"web-000000": [samples[:half]], "web-000001": [samples[half:]]})
    uids = [one["uid"] for one in samples]
    config = root / "corpus.yaml"
    config.write_text(yaml.safe_dump(corpus.model_dump(mode="json", exclude_unset=True)))
    is_true = caption_of == np.arange(pairs)
    truth = pl.DataFrame({"uid": uids, "true_pair": is_true, "concept": [f"c{at % 6}" for at in range(pairs)]})
    truth.write_parquet(root / "truth.parquet")
    return Compared(config, uids, is_true, root / "truth.parquet")


def _view(meaning: np.ndarray, dim: int, rng: np.random.Generator) -> np.ndarray:
    seen = meaning @ rng.normal(size=(meaning.shape[1], dim)) + 2 * rng.normal(size=(len(meaning), dim))
    return (seen / np.linalg.norm(seen, axis=1, keepdims=True)).astype(np.float16)


def released(compared: Compared) -> Path:
    """A release of all pairs, as far as a comparison reads one: manifest and index, without shards."""
    workspace = compared.workspace
    folder = workspace.release_dir("00c0ffee00c0ffee")
    rows = [
        {"uid": uid, "key": uid, "shard": "none.tar", "signature": "image+text", "split": "train", "repeats": 1}
        for uid in compared.uids
    ]
    numbers = dict.fromkeys(("offset", "length", "copy", "tokens", "pixels", "frames", "augment"), 0)
    write_table(folder / "index.parquet", pa.Table.from_pylist([row | numbers for row in rows], schema=INDEX))
    manifest = {**dict.fromkeys(REQUIRED), "format": 2, "release_id": folder.name, "shards": [], "files": {}}
    publish_json(folder / "manifest.json", manifest)
    workspace.set_latest(folder.name)
    return Path(folder.path)
