"""Scores from kept vectors: each kind over features tables, against plain numpy of the same formula.

Ours reads the tables slice by slice and multiplies exactly in float64, so that a score is the same in any batch. The
peer has its vectors in memory, as float32, and computes the formula in one block of 20,000 rows.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
from upath import UPath

from benchmarks.harness import Row, compare, measure, start_clock
from mmdata.config.select_scores import Density
from mmdata.select.density import prune
from mmdata.select.scores.aesthetic import EmbeddingHead
from mmdata.select.scores.bank import Bank
from mmdata.select.scores.clip_loss import SurrogateClipLoss
from mmdata.select.scores.norm_sim import NormSim
from mmdata.select.scores.score_columns import score_table
from mmdata.select.scores.targets import TargetVectors
from mmdata.select.scores.variance_alignment import VarianceAlignment
from mmdata.select.scores.vector_score import VectorScore
from mmdata.storage.tables import write_table

DIM = 512
SLICE_ROWS = 10_000
PEER_ROWS = 20_000
BANK_PAIRS = 4096
TARGETS = 5_000
TEMPERATURE = 0.01
CLUSTERS = 1000
KINDS = ("s-clip-loss", "norm-sim inf", "norm-sim 2", "vas", "aesthetic")


def run(quick: bool) -> list[Row]:
    """Every kind of score at 1M rows (20k if quick), and density-based pruning; one round each."""
    rows = 20_000 if quick else 1_000_000
    folder = Path(tempfile.mkdtemp(prefix="mmdata-bench-scores-"))
    try:
        generate(folder, rows)
        lines = [_compared(kind, folder, rows) for kind in KINDS]
        return [*lines, _density(rows)]
    finally:
        shutil.rmtree(folder)


def _compared(kind: str, folder: Path, rows: int) -> Row:
    return compare(
        f"score {kind}, {rows:,} rows of {DIM}",
        "rows/s",
        lambda: measure(score_ours, kind, folder),
        lambda: measure(score_plain, kind, folder),
        rounds=1,
        note=f"ours from tables, exact; peer: numpy float32 on {PEER_ROWS:,} rows in memory",
    )


def _density(rows: int) -> Row:
    return compare(
        f"density-based pruning, {rows:,} rows, {CLUSTERS:,} clusters",
        "rows/s",
        lambda: measure(prune_ours, rows),
        lambda: measure(prune_plain, rows),
        rounds=1,
        note="from the distances on; peer: a loop that sorts each cluster, without the quadratic program",
    )


# -- the two sides ----------------------------------------------------------------------------------------------


def score_ours(kind: str, folder: Path) -> float:
    """One score over all tables, slice by slice."""
    score = _score(kind, _bank(folder))
    start_clock()
    rows = 0
    for path in sorted(folder.glob("*.parquet")):
        rows += len(score_table(UPath(path), SLICE_ROWS, {"score": score})["score"])
    return float(rows)


def score_plain(kind: str, folder: Path) -> float:
    """The formula over the first rows, in one block."""
    bank = _bank(folder)
    pictures, texts = (
        np.concatenate([np.load(folder / f"{number}-{side}.npy") for number in range(PEER_ROWS // SLICE_ROWS)])
        for side in ("pictures", "texts")
    )
    v, t = pictures.astype(np.float32), texts.astype(np.float32)
    others, other_texts = bank.pictures.astype(np.float32), bank.texts.astype(np.float32)
    target = _target().pictures.astype(np.float32)
    plain: dict[str, Callable[[], np.ndarray]] = {
        "s-clip-loss": lambda: (
            (v * t).sum(1)
            - TEMPERATURE / 2 * (_log_sum(v @ other_texts.T / TEMPERATURE) + _log_sum(t @ others.T / TEMPERATURE))
        ),
        "norm-sim inf": lambda: np.abs(v @ target.T).max(axis=1),
        "norm-sim 2": lambda: np.sqrt(((v @ target.T) ** 2).sum(axis=1)),
        "vas": lambda: ((v @ (others.T @ others / len(others))) * v).sum(axis=1),
        "aesthetic": lambda: _layers_over(v),
    }
    start_clock()
    return float(len(plain[kind]()))


def prune_ours(rows: int) -> float:
    """Pruning, from the distances on."""
    distance, cluster, centroids, uids = _clustered(rows)
    start_clock()
    pruned = prune(distance, cluster, centroids, uids, uids, Density(keep=0.6))
    return float(len(pruned.keep))


def prune_plain(rows: int) -> float:
    """A loop over the clusters that sorts each: what a plain script does after the program is solved."""
    distance, cluster, _, _ = _clustered(rows)
    start_clock()
    keep = np.zeros(rows, bool)
    for number in range(CLUSTERS):
        members = np.flatnonzero(cluster == number)
        keep[members[np.argsort(-distance[members])[: int(0.6 * len(members))]]] = True
    return float(len(keep))


def _log_sum(logits: np.ndarray) -> np.ndarray:
    highest = logits.max(axis=1, keepdims=True)
    return np.asarray(highest[:, 0] + np.log(np.exp(logits - highest).sum(axis=1)))


def _score(kind: str, bank: Bank) -> VectorScore:
    makers: dict[str, Callable[[], VectorScore]] = {
        "s-clip-loss": lambda: SurrogateClipLoss(bank, TEMPERATURE),
        "norm-sim inf": lambda: NormSim(_target(), "inf"),
        "norm-sim 2": lambda: NormSim(_target(), 2),
        "vas": lambda: VarianceAlignment(bank.pictures, None, bank.digest),
        "aesthetic": lambda: EmbeddingHead(_layers(), "none"),
    }
    return makers[kind]()


# -- the data ---------------------------------------------------------------------------------------------------


def generate(folder: Path, rows: int) -> None:
    """Features tables with random unit vectors; captions lie near their pictures. The first slices as arrays, too."""
    for number in range(rows // SLICE_ROWS):
        pictures, texts = _pairs(number)
        columns = {name: _lists(matrix) for name, matrix in (("embedding", pictures), ("text_embedding", texts))}
        write_table(UPath(folder / f"{number:04d}.parquet"), pa.table(columns))
        if number < PEER_ROWS // SLICE_ROWS:
            np.save(folder / f"{number}-pictures.npy", pictures)
            np.save(folder / f"{number}-texts.npy", texts)


def _pairs(number: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(number)
    pictures = _unit(rng.standard_normal((SLICE_ROWS, DIM), np.float32))
    return pictures, _unit(pictures + 0.05 * rng.standard_normal((SLICE_ROWS, DIM), np.float32))


def _unit(matrix: np.ndarray) -> np.ndarray:
    return np.asarray(matrix / np.linalg.norm(matrix, axis=1, keepdims=True), np.float16)


def _lists(matrix: np.ndarray) -> pa.Array:
    ends = np.arange(0, matrix.size + 1, DIM, dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(ends), pa.array(matrix.ravel(), pa.float16()))


def _bank(folder: Path) -> Bank:
    pictures, texts = (np.load(folder / f"0-{side}.npy")[:BANK_PAIRS] for side in ("pictures", "texts"))
    return Bank(pictures, texts, tuple(f"{number:032x}" for number in range(BANK_PAIRS)), BANK_PAIRS)


def _target() -> TargetVectors:
    return TargetVectors(_unit(np.random.default_rng(1).standard_normal((TARGETS, DIM), np.float32)))


def _layers() -> list[tuple[np.ndarray, np.ndarray]]:
    """The widths of LAION's predictor."""
    rng, widths = np.random.default_rng(2), (DIM, 1024, 128, 64, 16, 1)
    return [
        (rng.normal(size=(out, into)) / into**0.5, rng.normal(size=out)) for into, out in itertools.pairwise(widths)
    ]


def _layers_over(vectors: np.ndarray) -> np.ndarray:
    for weight, bias in _layers():
        vectors = vectors @ weight.T.astype(np.float32) + bias.astype(np.float32)
    return vectors[:, 0]


def _clustered(rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    cluster = np.minimum(rng.zipf(1.3, rows) - 1, CLUSTERS - 1).astype(np.int32)
    centroids = _unit(rng.standard_normal((CLUSTERS, DIM), np.float32))
    return rng.uniform(0, 1, rows), cluster, centroids, np.arange(rows, dtype=np.uint64)
