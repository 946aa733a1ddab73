"""All pairs that a comparison may use, from the corpus's workspace and from releases of other workspaces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from upath import UPath

from mmdata.config import Corpus, Score, Select
from mmdata.config.concept_list import read_concept_lists
from mmdata.engine.freshness import releasable_parts
from mmdata.errors import DataError, UserError
from mmdata.releases.manifest import Release, open_release
from mmdata.score.features_reader import ScorerMark
from mmdata.select.clusters import assign_clusters, cluster_count, train_centroids
from mmdata.select.concept_matcher import ConceptMatcher
from mmdata.select.concepts import flatten, rarest
from mmdata.storage.tables import scan_tables
from mmdata.workspace.layout import Workspace
from training.compare.arms import TABLES, Arm
from training.compare.caption_cache import CaptionCache
from training.compare.pairs import PairTables, Vectors, read_pairs, read_uids
from training.compare.shard_pairs import read_shard_pairs
from training.compare.truth import with_truth

OnStep = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Pool:
    """The pairs, and where their vectors lie.

    Args:
        frame: FACTS, true_pair, original, kind (see `with_truth`), `source`, `table` and `row`; sorted by uid.
        sources: by the numbers in `source`.
        held_out: int64, rows of a given held-out set; None: none is given.
        select: the corpus's settings; their concept list, if there is one, names the concepts.
    """

    frame: pl.DataFrame
    sources: Sequence[PairTables]
    captions: CaptionCache
    scorer: ScorerMark
    knows_truth: bool
    held_out: np.ndarray | None
    select: Select
    seed: int

    def vectors(self, rows: np.ndarray) -> Vectors:
        """The vectors of some rows, in their order. Raises DataError where sources have vectors of other lengths."""
        wanted = self.frame[rows]
        pieces = []
        for number, source in enumerate(self.sources):
            at = np.flatnonzero((wanted["source"] == number).to_numpy())
            if len(at):
                pieces.append((at, source.vectors(wanted[at], self.captions)))
        lengths = {(found.image.shape[1], found.text.shape[1]) for _, found in pieces if found.has_both.any()}
        if len(lengths) != 1:
            raise DataError(f"vectors of different lengths among the arms, or none: {sorted(lengths)}")
        dim, text_dim = lengths.pop()
        image, text = np.zeros((len(rows), dim), np.float32), np.zeros((len(rows), text_dim), np.float32)
        has_both = np.zeros(len(rows), bool)
        for at, found in pieces:
            usable = np.flatnonzero(found.has_both)
            image[at[usable]], text[at[usable]], has_both[at[usable]] = found.image[usable], found.text[usable], True
        return Vectors(image, text, has_both)

    def concepts(self, frame: pl.DataFrame, image: np.ndarray) -> list[str]:
        """What the recall of each pair is averaged with.

        It is the kind that the truth names, else the rarest concept of the corpus's list, else the picture's cluster.
        """
        if frame["kind"].is_not_null().any():
            return frame["kind"].fill_null("none").to_list()
        balance = self.select.balance
        if balance.concepts:
            lists = read_concept_lists(balance.concepts)
            matcher = ConceptMatcher(lists, balance.concepts_ignore_case)
            row, matched = flatten(matcher.match(frame["caption"], frame["lang"] if lists.languages else None))
            own = rarest(len(frame), row, matched, np.bincount(matched, minlength=len(lists.names)))
            return [lists.names[at] if at >= 0 else "none" for at in own]
        points = image.astype(np.float16)
        centroids = train_centroids(points, cluster_count(len(frame), self.select.dedup.clusters), self.seed)
        return [f"c{at}" for at in assign_clusters(points, centroids)]


def open_pool(
    corpus: Corpus | None,
    arms: Sequence[Arm],
    held_out: str | None,
    truth: Path | None,
    group_column: str | None,
    cache: UPath,
    on_step: OnStep,
) -> Pool:
    """Read what is known of all pairs; of releases of other workspaces, where their tables or shards lie.

    Raises:
        UserError: there is no pair, or the truth or the held-out set cannot be read or names no pair.
        DataError: they were embedded by different models; a table or shard is damaged.
    """
    releases = [arm.release for arm in arms if arm.release is not None]
    held_release = open_release(held_out) if held_out is not None and not held_out.endswith(TABLES) else None
    sources: list[PairTables] = []
    if corpus is not None:
        workspace = Workspace(corpus.workspace)
        parts, _ = releasable_parts(corpus, workspace)
        sources.append(read_pairs(workspace, parts, group_column))
    score = corpus.score if corpus is not None else _score_of(releases)
    for release in [*releases, *([held_release] if held_release else [])]:
        sources += _further(release, sources, score, group_column, cache, on_step)
    marks = {source.scorer.fingerprint: source.scorer for source in sources if source.scorer is not None}
    if len(marks) > 1:
        raise DataError(
            f"the arms were embedded by different models: {', '.join(mark.name for mark in marks.values())}. "
            "Remedy: score them with one model, in one workspace."
        )
    frames = [source.frame.with_columns(source=pl.lit(number, pl.UInt32)) for number, source in enumerate(sources)]
    frame = pl.concat(frames, how="vertical").unique("uid", keep="first", maintain_order=True).sort("uid")
    if frame.is_empty() or not marks:
        raise UserError("there is no fetched and scored pair of picture and caption. Remedy: `mmdata build`.")
    frame = with_truth(frame, truth)
    mark = next(iter(marks.values()))
    return Pool(
        frame,
        sources,
        CaptionCache(score, mark, cache),
        mark,
        truth is not None,
        None if held_out is None else _held_out_rows(held_out, held_release, frame),
        corpus.select if corpus else Select(),
        corpus.seed if corpus else 0,
    )


def _further(
    release: Release,
    sources: Sequence[PairTables],
    score: Score,
    group_column: str | None,
    cache: UPath,
    on_step: OnStep,
) -> list[PairTables]:
    """What holds the pairs of a release that no source has: its workspace's tables, or else its shards."""
    index = scan_tables([release.folder / "index.parquet"], ["uid", "signature"])
    seen = pl.col("signature").str.contains("image|video") & pl.col("signature").str.contains("text")
    missing = index.filter(seen).select("uid").unique().collect()
    for source in sources:
        missing = missing.join(source.frame.select("uid"), on="uid", how="anti")
    if missing.is_empty():
        return []
    found = []
    tables = read_pairs(release.workspace, release.workspace.catalog().live_parts(), None)
    if tables.scorer is not None and len(missing.join(tables.frame, on="uid", how="semi")):
        if group_column is not None:
            tables = read_pairs(release.workspace, release.workspace.catalog().live_parts(), group_column)
        found.append(tables)
        missing = missing.join(tables.frame.select("uid"), on="uid", how="anti")
    if len(missing):
        done = 0

        def advance(samples: int) -> None:
            nonlocal done
            done += samples
            on_step(f"embed {release.id}", done, 0)

        found.append(read_shard_pairs(release, score, cache / "shards", group_column, advance))
    return found


def _score_of(releases: Sequence[Release]) -> Score:
    """The scorer that the first release names."""
    for release in releases:
        config = release.manifest.get("config") or {}
        if isinstance(config.get("score"), dict):
            return Score.model_validate(config["score"])
    return Score.model_validate({"model": "demo"})


def _held_out_rows(given: str, release: Release | None, frame: pl.DataFrame) -> np.ndarray:
    if release is None:
        wanted = read_uids(Path(given)).select("uid")
    else:
        index = scan_tables([release.folder / "index.parquet"], ["uid", "split"]).collect()
        validation = index.filter(pl.col("split") == "validation")
        wanted = (validation if len(validation) else index).select("uid").unique()
    rows = frame.select("uid").with_row_index("at").join(wanted, on="uid", how="semi").sort("at")["at"].to_numpy()
    if not len(rows):
        raise UserError(f"--held-out {given}: none of its samples is a pair of the corpus or of an arm.")
    return rows.astype(np.int64)
