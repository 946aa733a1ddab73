"""Finds near-duplicates of samples to forget: same URL or file, similar perceptual hash, or near embedding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from mmdata.errors import UserError
from mmdata.storage.tables import read_table
from mmdata.takedown.find import Hit, Matches
from mmdata.takedown.parts import part_names, slice_names
from mmdata.urls import url_key
from mmdata.workspace.layout import Workspace

MAX_TARGETS = 20_000  # samples to find near-duplicates of; each is compared with all other samples
BLOCK_ROWS = 2_048

_Slice = tuple[str, str]
"""Names of a part and of its slice."""


@dataclass(frozen=True, slots=True)
class Near:
    """A near-duplicate of a sample to forget."""

    hit: Hit
    source: str
    of: str  # uid of the sample to forget
    how: str  # `same URL`, `same file`, `phash` or `embedding`; the first that applies
    distance: float  # number of differing bits for `phash`, 1 - cosine for `embedding`, else 0


def find_near(workspace: Workspace, matches: Matches, phash_bits: int | None, max_distance: float) -> list[Near]:
    """All near-duplicates of the matched samples, nearest first. The search is exact, one slice at a time.

    Args:
        phash_bits: how many bits of the perceptual hash may differ; None: do not compare hashes.
        max_distance: largest 1 - cosine of two embeddings that counts as near.

    Raises:
        UserError: there are too many matched samples.
    """
    if len(matches.uids) > MAX_TARGETS:
        raise UserError(
            f"{len(matches.uids):,} samples are to be forgotten, but near-duplicates can be found for at most "
            f"{MAX_TARGETS:,}. Remedy: give fewer at a time, or --no-near."
        )
    targets = _targets(workspace, matches)
    near: list[Near] = []
    for part in part_names(workspace):
        for name in slice_names(workspace, part, "features"):
            near += _near_in_slice(workspace, (part, name), matches.uids, targets, phash_bits, max_distance)
    order = ("same URL", "same file", "phash", "embedding")
    return sorted(near, key=lambda match: (order.index(match.how), match.distance, match.hit.uid, match.hit.part))


@dataclass(frozen=True, slots=True)
class _Targets:
    """The samples to compare with.

    Args:
        urls, files: URL key or SHA-256 -> uid.
    """

    urls: dict[str, str]
    files: dict[str, str]
    hashes: np.ndarray  # uint64 (n,), of the samples `hash_uids`
    hash_uids: list[str]
    embeddings: np.ndarray  # float32 (m, d), of the samples `embedding_uids`
    embedding_uids: list[str]


def _targets(workspace: Workspace, matches: Matches) -> _Targets:
    hashes: dict[str, int] = {}
    embeddings: dict[str, np.ndarray] = {}
    for part, name in sorted({(hit.part, hit.slice_name) for hit in matches.hits}):
        frame = _features(workspace, part, name)
        for row in frame.filter(pl.col("uid").is_in(sorted(matches.uids))).iter_rows(named=True):
            if row["phash"] is not None:
                hashes[row["uid"]] = row["phash"]
            if row["embedding"] is not None:
                embeddings[row["uid"]] = np.asarray(row["embedding"], np.float32)
    return _Targets(
        urls={hit.url_key: hit.uid for hit in matches.hits if hit.url_key is not None},
        files={hit.sha256: hit.uid for hit in matches.hits if hit.sha256 is not None},
        hashes=np.array(list(hashes.values()), np.uint64),
        hash_uids=list(hashes),
        embeddings=np.stack(list(embeddings.values())) if embeddings else np.zeros((0, 1), np.float32),
        embedding_uids=list(embeddings),
    )


def _near_in_slice(
    workspace: Workspace, slice_: _Slice, uids: set[str], targets: _Targets, phash_bits: int | None, max_distance: float
) -> list[Near]:
    part, name = slice_
    rows = pl.DataFrame(read_table(workspace.table(part, "rows", name), ["uid", "url", "kind", "source"]))
    media = pl.DataFrame(read_table(workspace.table(part, "media", name), ["uid", "sha256"]))
    frame = _features(workspace, part, name).join(rows, on="uid").join(media, on="uid")
    frame = frame.filter(~pl.col("uid").is_in(sorted(uids)))
    by_hash = _nearest_hashes(frame["phash"], targets.hashes) if phash_bits is not None else None
    by_embedding = _nearest_embeddings(frame["embedding"], targets.embeddings)
    near = []
    for number, row in enumerate(frame.iter_rows(named=True)):
        key = url_key(row["url"]) if row["url"] else None
        hit = Hit(row["uid"], part, name, key, row["sha256"])
        match = Near(hit, row["source"], "", "", 0.0)
        if row["kind"] == "image" and key in targets.urls:
            near.append(replace(match, how="same URL", of=targets.urls[str(key)]))
        elif row["sha256"] in targets.files:
            near.append(replace(match, how="same file", of=targets.files[row["sha256"]]))
        elif by_hash is not None and phash_bits is not None and by_hash[0][number] <= phash_bits:
            uid = targets.hash_uids[by_hash[1][number]]
            near.append(replace(match, how="phash", of=uid, distance=float(by_hash[0][number])))
        elif by_embedding is not None and by_embedding[0][number] <= max_distance:
            uid = targets.embedding_uids[by_embedding[1][number]]
            near.append(replace(match, how="embedding", of=uid, distance=round(float(by_embedding[0][number]), 4)))
    return near


def _nearest_hashes(hashes: pl.Series, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Distance in bits to the nearest target and its index, int64 (n,) each; 65 bits for rows without a hash."""
    if not len(targets) or not len(hashes):
        return None
    has_hash = hashes.is_not_null().to_numpy()
    values = hashes.fill_null(0).to_numpy()
    distance, nearest = np.full(len(values), 65, np.int64), np.zeros(len(values), np.int64)
    for start in range(0, len(values), BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        bits = np.bitwise_count(values[block, None] ^ targets[None])
        nearest[block] = bits.argmin(axis=1)
        distance[block] = bits.min(axis=1)
    return np.where(has_hash, distance, 65), nearest


def _nearest_embeddings(embeddings: pl.Series, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """1 - cosine to the nearest target and its index, (n,) each; infinite for rows without an embedding."""
    rows = np.flatnonzero(embeddings.is_not_null().to_numpy())
    if not len(targets) or not len(rows):
        return None
    vectors = np.stack([np.asarray(vector, np.float32) for vector in embeddings.gather(rows)])
    distance, nearest = np.full(len(embeddings), np.inf), np.zeros(len(embeddings), np.int64)
    if vectors.shape[1] != targets.shape[1]:
        return None  # the embeddings come from another model
    for start in range(0, len(rows), BLOCK_ROWS):
        block = rows[start : start + BLOCK_ROWS]
        products = vectors[start : start + BLOCK_ROWS] @ targets.T
        nearest[block] = products.argmax(axis=1)
        distance[block] = 1 - products.max(axis=1)
    return distance, nearest


def _features(workspace: Workspace, part: str, name: str) -> pl.DataFrame:
    return pl.DataFrame(read_table(workspace.table(part, "features", name), ["uid", "phash", "embedding"]))


def hits_of(near: Sequence[Near]) -> list[Hit]:
    """The near-duplicates without the reasons."""
    return [match.hit for match in near]
