"""The selection stage: reads what all releasable parts know, decides, and writes the draft of a release."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import polars as pl
from upath import UPath

from mmdata.config import Corpus
from mmdata.config.concept_list import read_concepts
from mmdata.config.scorers import scorer_name
from mmdata.engine.freshness import releasable_parts
from mmdata.errors import DataError
from mmdata.fingerprint import fingerprint
from mmdata.observe import logs
from mmdata.releases.draft import Draft, ReleasePlan, find_draft, plan_release, write_draft
from mmdata.score.features_reader import read_scorer_mark
from mmdata.select.candidates import BATCH_ROWS, Slice, merge_candidates, read_candidates
from mmdata.select.clusters import (
    Clusters,
    assign_clusters,
    cluster_count,
    read_clusters,
    train_centroids,
    training_rows,
    write_clusters,
)
from mmdata.select.decide import NO_CLUSTER, balance_and_repeat, drop_duplicates, drop_followers, is_kind, judge
from mmdata.select.domains import cap_domains
from mmdata.select.embeddings import gather_embeddings
from mmdata.select.rates import Rates, rates_settings, read_lasting, read_rates, write_rates
from mmdata.select.selection_summary import reasons_text, summarise
from mmdata.select.selection_table import write_selection
from mmdata.select.semantic import semantic_leaders
from mmdata.select.verdicts import Verdicts
from mmdata.stage import Progress, StageReport, silent
from mmdata.workspace.layout import Part, Workspace

_log = logs.logger(__name__)


def select_samples(corpus: Corpus, workspace: Workspace, progress: Progress = silent) -> StageReport:
    """Decide which samples the next release holds, and how often; write its draft.

    Writes releases/<id>/{selection.parquet, rates.json, clusters.npz}, then selection.json. Where nothing that decides
    has changed since the latest release (or since the draft), the id stays and no table is written.

    Raises:
        DataError: no part may be released (lists why not); features come from different scorers; a table is damaged.
    """
    parts, refused = releasable_parts(corpus, workspace)
    if not parts:
        why = reasons_text(refused) or "  the catalogue has no parts: materialise `source_catalog` first"
        raise DataError(f"no part may enter a release:\n{why}\nRemedy: materialise the part assets of these parts.")
    concepts = read_concepts(corpus.select.balance.concepts) if corpus.select.balance.concepts else None
    plan = plan_release(corpus, workspace, parts)
    folder = workspace.release_dir(plan.release_id)
    reused = plan.published or _is_drafted(workspace, plan, folder)
    if not reused:
        _select(corpus, workspace, parts, concepts, plan, progress)
    summary = summarise(folder, corpus.select.filter)
    names = tuple(part.name for part in parts)
    draft = Draft(plan.release_id, plan.inputs, plan.parent, names, refused, summary.counts, summary.reasons)
    for name, why in refused.items():
        _log.warning("part stays out of the release", part=name, reason=why, release=plan.release_id)
    _log.info("samples are selected", release=plan.release_id, parts=len(parts), reused=reused, counts=summary.counts)
    write_draft(workspace, draft)
    return StageReport(
        stage="selection",
        counts=summary.counts | {"parts": len(parts), "refused_parts": len(refused)},
        reasons=summary.reasons,
        numbers=summary.numbers(),
        tables=summary.tables() | {"refused parts": [{"part": k, "reason": v} for k, v in refused.items()]},
        images=summary.images(scorer_name(corpus.score)),
        paths={name: str(folder / name) for name in ("selection.parquet", "rates.json")},
        slices_done=0 if reused else 1,
        slices_reused=1 if reused else 0,
    )


def _is_drafted(workspace: Workspace, plan: ReleasePlan, folder: UPath) -> bool:
    draft = find_draft(workspace)
    whole = all((folder / name).exists() for name in ("selection.parquet", "rates.json"))
    return whole and draft is not None and draft.release_id == plan.release_id


def _select(
    corpus: Corpus,
    workspace: Workspace,
    parts: Sequence[Part],
    concepts: list[str] | None,
    plan: ReleasePlan,
    progress: Progress,
) -> None:
    slices = _slices(workspace, parts)
    scorer = _scorer(workspace, slices)
    frame = _read(corpus, workspace, slices, concepts, progress)
    settings = rates_settings(corpus.select, corpus.seed, fingerprint(concepts))
    before = workspace.release_dir(plan.parent) / "rates.json" if plan.parent else None
    parent = read_rates(before, settings) if before else None
    rates = parent or (read_lasting(before, settings) if before else Rates(settings))
    verdicts, cut = judge(frame, corpus.select, scorer, rates.cut)
    rank = drop_duplicates(frame, verdicts, corpus.select.dedup)
    known = read_clusters(workspace.release_dir(plan.parent) / "clusters.npz") if plan.parent else None
    clusters, cluster = _cluster(corpus, workspace, slices, frame, verdicts, rank, scorer, known, progress)
    verdicts.settle()
    cap_domains(frame, verdicts, corpus.select.balance, rank, corpus.seed)
    decision = balance_and_repeat(
        frame,
        verdicts,
        cluster,
        corpus.select,
        corpus.seed,
        corpus.shards.validation_fraction,
        replace(rates, cut=cut),
        concepts,
        sticky=parent is not None,
    )
    folder = workspace.release_dir(plan.release_id)
    if clusters is not None:
        write_clusters(folder / "clusters.npz", clusters)
    write_rates(folder / "rates.json", decision.rates)
    write_selection(folder / "selection.parquet", frame, slices, verdicts, cluster, decision)


def _slices(workspace: Workspace, parts: Sequence[Part]) -> list[Slice]:
    found = []
    for part in parts:
        stamp = workspace.part_stamp(part.name, "rows")
        for name in stamp.slices if stamp else ():
            one = workspace.slice_stamp(part.name, "rows", name)
            if one is None:
                raise DataError(
                    f"part {part.name}, slice {name}: its stamp is gone. Remedy: materialise source_rows again."
                )
            found.append(Slice(part.name, name, one.rows))
    return found


def _scorer(workspace: Workspace, slices: Sequence[Slice]) -> str:
    """The fingerprint of the one scorer that all features come from."""
    seen: dict[str, tuple[str, str]] = {}
    for one in slices:
        scorer = read_scorer_mark(workspace.table(one.part, "features", one.name))
        seen.setdefault(scorer.fingerprint, (scorer.name, one.part))
    if len(seen) > 1:
        lines = "\n".join(f"  {name} ({key}), first in part {part}" for key, (name, part) in sorted(seen.items()))
        raise DataError(
            f"the parts were scored by {len(seen)} different models, and their scores do not compare:\n{lines}\n"
            "Remedy: materialise features again for the parts of the model you do not want."
        )
    return next(iter(seen), "")


def _read(
    corpus: Corpus, workspace: Workspace, slices: Sequence[Slice], concepts: list[str] | None, progress: Progress
) -> pl.DataFrame:
    total = sum(one.rows for one in slices)
    frames, done, first = [], 0, 0
    while first < len(slices):
        batch = _batch(slices, first)
        frames.append(read_candidates(workspace, batch, first, corpus.select, concepts))
        first += len(batch)
        done += len(frames[-1])
        progress("selection", done, total)
    return merge_candidates(frames)


def _batch(slices: Sequence[Slice], first: int) -> Sequence[Slice]:
    """The next slices, up to about `BATCH_ROWS` rows."""
    rows = 0
    for stop in range(first, len(slices)):
        rows += slices[stop].rows
        if rows >= BATCH_ROWS:
            return slices[first : stop + 1]
    return slices[first:]


def _cluster(
    corpus: Corpus,
    workspace: Workspace,
    slices: Sequence[Slice],
    frame: pl.DataFrame,
    verdicts: Verdicts,
    rank: np.ndarray,
    scorer: str,
    known: Clusters | None,
    progress: Progress,
) -> tuple[Clusters | None, np.ndarray]:
    """Cluster what is left and drop semantic duplicates; a row without an embedding has no cluster."""
    cluster = np.full(len(frame), NO_CLUSTER, np.int32)
    kept = verdicts.kept()
    place, row = frame["place"].gather(kept).to_numpy(), frame["row"].gather(kept).to_numpy()
    tables = [workspace.table(one.part, "features", one.name) for one in slices]
    done = 0

    def advance(rows: int) -> None:
        nonlocal done
        done += rows
        progress("embeddings", done, len(kept))

    with gather_embeddings(tables, place, row, advance) as (embeddings, which):
        rows = kept[which]
        if len(rows) == 0:
            return known, cluster
        configured = corpus.select.dedup.clusters
        clusters = known
        if clusters is None or not clusters.fits(scorer, len(rows), configured):
            count = cluster_count(len(rows), configured)
            high, low = frame["uid_high"].gather(rows).to_numpy(), frame["uid_low"].gather(rows).to_numpy()
            points = embeddings[training_rows(high, low, count, corpus.seed)]
            clusters = Clusters(train_centroids(points, count, corpus.seed), scorer, len(rows), configured or 0)
        cluster[rows] = assign_clusters(embeddings, clusters.centroids)
        eps = corpus.select.dedup.semantic_eps
        if eps is not None:
            # pictures and clips are never duplicates of each other, though they share clusters
            kind_cluster = cluster[rows] * 2 + is_kind(frame, "video")[rows]
            leaders = semantic_leaders(embeddings, kind_cluster, rank[rows], eps)
            drop_followers(verdicts, rows, leaders, "duplicate:semantic")
    return clusters, cluster
