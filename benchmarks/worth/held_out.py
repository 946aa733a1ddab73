"""Which samples are held out of every training set, and which are too like them to be trained on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from mmdata.config import Corpus
from mmdata.config.concept_list import read_concept_lists
from mmdata.demo.demo_summary import TRUE_PAIRS
from mmdata.engine.freshness import releasable_parts
from mmdata.samples import hash_words, uid_words, unit_interval
from mmdata.select.clusters import assign_clusters, cluster_count, train_centroids
from mmdata.select.concept_matcher import ConceptMatcher
from mmdata.select.concepts import flatten, rarest
from mmdata.select.dedup import keep_greedily
from mmdata.select.embeddings import read_vectors
from mmdata.select.verdicts import STAYS
from mmdata.storage.tables import scan_tables
from mmdata.workspace.layout import Workspace

PHASH_BITS, COSINE_EPS = 4, 0.03  # where the corpus's own deduplication sets none
_BLOCK = 512


@dataclass(frozen=True, slots=True)
class Facts:
    """Every sample that could be trained on: fetched, scored, with a caption.

    Args:
        frame: uid, url, caption, sha256, phash (UInt64), true_pair (bool; null: not known), original (uid of the sample
            that it copies, or null), concept (what its recall is averaged with).
        vectors: float32 n,dim, unit length; zero where there is none.
        knows_truth: whether a truth table was given.
    """

    frame: pl.DataFrame
    vectors: np.ndarray
    knows_truth: bool


def read_facts(corpus: Corpus, truth: Path | None) -> Facts:
    """Read them from all parts that may be released.

    Args:
        truth: Parquet with uid, planted, kind and of_uid, as the demo writes it.
    """
    workspace = Workspace(corpus.workspace)
    parts, _ = releasable_parts(corpus, workspace)
    frames, vectors = [], []
    for part in parts:
        stamp = workspace.part_stamp(part.name, "rows")
        for name in stamp.slices if stamp else ():
            table = {stage: workspace.table(part.name, stage, name) for stage in ("rows", "media", "features")}
            rows = scan_tables([table["rows"]], ["uid", "url", "caption", "problem"])
            media = scan_tables([table["media"]], ["status", "sha256"])
            features = scan_tables([table["features"]], ["phash", "problem", "lang"]).rename({"problem": "unscored"})
            frame = pl.concat([rows, media, features], how="horizontal").collect()
            present, which = read_vectors(table["features"], np.arange(len(frame)))
            held = np.zeros((len(frame), present.shape[1]), np.float32)
            held[which] = present
            frames.append(frame)
            vectors.append(held)
    dim = max((rows.shape[1] for rows in vectors), default=0)
    joined = np.concatenate([rows if rows.shape[1] else np.zeros((len(rows), dim), np.float32) for rows in vectors])
    frame = pl.concat(frames).with_row_index("at")
    usable = (
        (pl.col("status") == "success")
        & pl.col("problem").is_null()
        & pl.col("unscored").is_null()
        & (pl.col("caption").str.len_bytes() > 0)
    )
    frame = frame.filter(usable).unique("uid", keep="first").sort("uid")
    joined = joined[frame["at"].to_numpy()]
    joined /= np.maximum(np.linalg.norm(joined, axis=1, keepdims=True), 1e-9)
    frame = _with_truth(frame.select("uid", "url", "caption", "sha256", "phash", "lang"), truth)
    concept = frame["kind"] if truth is not None else _concepts(frame, joined, corpus)
    return Facts(frame.drop("kind", "lang").with_columns(concept.alias("concept")), joined, truth is not None)


def _with_truth(frame: pl.DataFrame, truth: Path | None) -> pl.DataFrame:
    if truth is None:
        nothing = pl.lit(None, pl.String)
        return frame.with_columns(pl.lit(None, pl.Boolean).alias("true_pair"), nothing.alias("original"), kind=nothing)
    planted = pl.read_parquet(truth).sort(pl.col("planted") == "repeated_row").unique("uid", keep="first")
    columns = planted.select(
        "uid", "kind", pl.col("planted").is_in(sorted(TRUE_PAIRS)).alias("true_pair"), original="of_uid"
    )
    return frame.join(columns, on="uid", how="left", maintain_order="left")


def _concepts(frame: pl.DataFrame, vectors: np.ndarray, corpus: Corpus) -> pl.Series:
    """A caption's rarest concept of the corpus's list; without a list, the picture's cluster."""
    if corpus.select.balance.concepts:
        concepts = read_concept_lists(corpus.select.balance.concepts)
        languages = frame["lang"] if concepts.languages else None
        matcher = ConceptMatcher(concepts, corpus.select.balance.concepts_ignore_case)
        row, matched = flatten(matcher.match(frame["caption"], languages))
        names = concepts.names
        own = rarest(len(frame), row, matched, np.bincount(matched, minlength=len(names)))
        return pl.Series([names[at] if at >= 0 else "none" for at in own])
    count = cluster_count(len(frame), corpus.select.dedup.clusters)
    points = vectors.astype(np.float16)
    return pl.Series([f"c{at}" for at in assign_clusters(points, train_centroids(points, count, corpus.seed))])


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Rows of the facts.

    Args:
        chosen: int64, evaluated on.
        pool: int64, trained on: neither chosen, nor nearly the same as one that was.
    """

    chosen: np.ndarray
    pool: np.ndarray


def hold_out(facts: Facts, fraction: float, most: int, seed: int, bits: int, eps: float) -> HeldOut:
    """Draw the held-out set by hash of the picture, one caption a picture, no two nearly the same.

    Where the truth is known, a sample whose caption is false, foreign or watermarked is not evaluated on.

    Args:
        fraction: of all pictures; `most`: at most so many.
        bits, eps: pictures are nearly the same if their perceptual hashes differ in at most `bits` bits or the cosine
            of their embeddings is at least 1 - eps.
    """
    frame, alike = facts.frame, _Alike(facts, bits, eps)
    high, low = uid_words(frame.select(pl.coalesce(pl.col("sha256").str.slice(0, 32), "uid"))["sha256"])
    draws = unit_interval(hash_words(high, low, seed, "data_worth"))
    eligible = frame["true_pair"].fill_null(not facts.knows_truth).to_numpy() & (draws < fraction)
    order = np.flatnonzero(eligible)
    order = order[np.lexsort((order, draws[order]))]
    _, first = np.unique(draws[order], return_index=True)  # of one picture's captions that of the lowest uid
    order = order[np.sort(first)]
    later, earlier = np.nonzero(np.tril(alike(order, order), -1))
    order = order[keep_greedily(len(order), earlier, later) == STAYS][:most]
    blocks = [np.arange(at, min(at + _BLOCK, len(frame))) for at in range(0, len(frame), _BLOCK)]
    like = np.concatenate([alike(block, order).any(1) for block in blocks])
    like[order] = True
    return HeldOut(np.sort(order), np.flatnonzero(~like))


class _Alike:
    """Whether rows are nearly the same: by URL, bytes, perceptual hash or embedding, or one is a planted copy."""

    def __init__(self, facts: Facts, bits: int, eps: float) -> None:
        frame = facts.frame
        self._vectors, self._bits, self._least = facts.vectors, bits, 1 - eps
        self._hashes = frame["phash"].fill_null(0).to_numpy()
        self._hashed = frame["phash"].is_not_null().to_numpy()
        families = (frame["url"], frame["sha256"], frame.select(pl.coalesce("original", "uid")).to_series())
        self._same = [np.unique(one.fill_null("").to_list(), return_inverse=True)[1] for one in families]
        self._known = [(one.is_not_null() & (one != "")).fill_null(False).to_numpy() for one in families]

    def __call__(self, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
        """bool rows,others."""
        near = self._vectors[rows] @ self._vectors[others].T >= self._least
        apart = np.bitwise_count(self._hashes[rows][:, None] ^ self._hashes[others][None])
        near |= (apart <= self._bits) & self._hashed[rows][:, None] & self._hashed[others][None]
        for same, known in zip(self._same, self._known, strict=True):
            near |= (same[rows][:, None] == same[others][None]) & known[rows][:, None] & known[others][None]
        return near
