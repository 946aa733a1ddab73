"""The selection stage: reads the tables of all releasable parts, decides, and writes the draft of a release."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain

import numpy as np
import polars as pl
from upath import UPath

from mmdata.config import Corpus
from mmdata.config.concept_list import Concepts, read_concept_lists
from mmdata.config.presets import preset_warnings
from mmdata.config.scorers import scorer_name
from mmdata.engine.freshness import releasable_parts
from mmdata.errors import DataError
from mmdata.fingerprint import fingerprint
from mmdata.observe import logs
from mmdata.releases.draft import Draft, ReleasePlan, find_draft, plan_release, write_draft
from mmdata.score.features_reader import read_scorer_mark
from mmdata.score.networks import refuse_unproven
from mmdata.select.balance_cost import balance_cost, cut_warnings
from mmdata.select.candidates import BATCH_ROWS, Slice, merge_candidates, read_candidates
from mmdata.select.cluster_rules import apply_cluster_rules
from mmdata.select.concept_matcher import ConceptMatcher, unmatchable
from mmdata.select.decide import balance_and_repeat, drop_duplicates, drop_followers, is_kind, judge
from mmdata.select.decontaminate import drop_contaminated
from mmdata.select.domains import cap_domains
from mmdata.select.embeddings import gather_embeddings
from mmdata.select.idle_rules import idle_rules, idle_scores
from mmdata.select.near_texts import near_text_leaders, read_captions
from mmdata.select.nearest_concepts import concept_vectors, concepts_column, nearest_concepts
from mmdata.select.rates import Rates, rates_settings, read_lasting, read_rates, write_rates
from mmdata.select.scores.score_columns import make_scores
from mmdata.select.selection_inputs import SelectionInputs
from mmdata.select.selection_summary import Summary, summarise
from mmdata.select.selection_table import write_selection
from mmdata.select.verdicts import Verdicts
from mmdata.stage import Progress, StageReport, silent
from mmdata.workspace.layout import Part, Workspace, redo_remedy

_log = logs.logger(__name__)

FAR_FROM_TARGET = "filter:near_target"
_TABLES = ("selection.parquet", "rates.json")


def select_samples(corpus: Corpus, workspace: Workspace, progress: Progress = silent) -> StageReport:
    """Decide which samples the next release holds, and how often; write its draft.

    Writes releases/<id>/{selection.parquet, rates.json, clusters.npz}, then selection.json. Where nothing that decides
    has changed since the latest release (or since the draft), the id stays and no table is written.

    Raises:
        UserError: a network that is to decide did not beat the scorer.
        DataError: no part may be released (lists why not); features come from different scorers; a table is damaged.
    """
    parts, refused = _releasable(corpus, workspace)
    refuse_unproven(corpus.score, corpus.select.filter.used_scores)
    plan = plan_release(corpus, workspace, parts)
    folder = workspace.release_dir(plan.release_id)
    reused = plan.published or _is_drafted(workspace, plan, folder)
    if not reused:
        _write_selection(_open_inputs(corpus, workspace, parts, progress), plan, folder)
    summary = summarise(folder, corpus.select.filter)
    for part, reason in refused.items():
        _log.warning("part stays out of the release", part=part, reason=reason, release=plan.release_id)
    _log.info("samples are selected", release=plan.release_id, parts=len(parts), reused=reused, counts=summary.counts)
    stamps = {part: stamp for part in parts if (stamp := workspace.part_stamp(part.name, "rows")) is not None}
    cost = balance_cost(corpus.select, folder, plan.release_id)
    warnings = {
        "rules that judge nothing": [
            *idle_rules(corpus.select.filter, stamps, corpus.score),
            *idle_scores(corpus.select, summary.named),
        ],
        "presets": preset_warnings(corpus.select.filter, corpus.score),
        "balance": [*cut_warnings(summary.counts, summary.reasons), *(cost.shortfalls if cost else ())],
    }
    for warning in chain.from_iterable(warnings.values()):
        _log.warning(warning, release=plan.release_id)
    names = tuple(part.name for part in parts)
    draft = Draft(plan.release_id, plan.inputs, plan.parent, names, refused, summary.counts, summary.reasons)
    write_draft(workspace, draft)
    return _report(draft, summary, folder, scorer_name(corpus.score), reused, warnings)


def try_selection(corpus: Corpus, workspace: Workspace, folder: UPath) -> UPath:
    """Decide as for a first release, and write the tables to a folder outside the workspace.

    No draft and no parent is looked at, so that settings can be tried, and the same ones always give the same table.

    Returns:
        The selection table.

    Raises:
        DataError: as `select_samples`.
    """
    inputs = _open_inputs(corpus, workspace, _releasable(corpus, workspace)[0], silent)
    _write_selection(inputs, ReleasePlan("", "", None, published=False), folder)
    return folder / "selection.parquet"


def _releasable(corpus: Corpus, workspace: Workspace) -> tuple[Sequence[Part], Mapping[str, str]]:
    """The parts that may be released, and why the others may not. Raises DataError where there is none."""
    parts, refused = releasable_parts(corpus, workspace)
    if not parts:
        reasons = "\n".join(f"  {part}: {reason}" for part, reason in refused.items())
        reasons = reasons or "  the catalogue has no parts: `mmdata build --sources-only` looks for them"
        remedy = "Remedy: repair the cause (`mmdata status --hosts 20` shows what failed), then `mmdata build`."
        raise DataError(f"no part may enter a release:\n{reasons}\n{remedy}")
    return parts, refused


def _open_inputs(corpus: Corpus, workspace: Workspace, parts: Sequence[Part], progress: Progress) -> SelectionInputs:
    slices = _list_slices(workspace, parts)
    scorer = _common_scorer(workspace, slices)
    paths = corpus.select.balance.concepts
    concepts = read_concept_lists(paths) if paths else None
    scores = make_scores(corpus, workspace, slices, scorer)
    return SelectionInputs(corpus, workspace, slices, scorer, concepts, scores, progress)


def _is_drafted(workspace: Workspace, plan: ReleasePlan, folder: UPath) -> bool:
    """Whether the tables of the planned release were written by an earlier run."""
    draft = find_draft(workspace)
    is_complete = all((folder / name).exists() for name in _TABLES)
    return is_complete and draft is not None and draft.release_id == plan.release_id


def _report(
    draft: Draft, summary: Summary, folder: UPath, scorer: str, reused: bool, warnings: Mapping[str, Sequence[str]]
) -> StageReport:
    refused = [{"part": part, "reason": reason} for part, reason in draft.refused_parts.items()]
    return StageReport(
        stage="selection",
        counts=summary.counts | {"parts": len(draft.parts), "refused_parts": len(refused)},
        reasons=summary.reasons,
        version=draft.release_id,
        numbers=summary.numbers(),
        tables=summary.tables()
        | {"refused parts": refused}
        | {title: [{"warning": warning} for warning in listed] for title, listed in warnings.items() if listed},
        images=summary.images(scorer),
        paths={name: str(folder / name) for name in _TABLES},
        slices_done=0 if reused else 1,
        slices_reused=1 if reused else 0,
    )


def _write_selection(inputs: SelectionInputs, plan: ReleasePlan, folder: UPath) -> None:
    """Decide on every candidate and publish the tables of the release."""
    corpus, select = inputs.corpus, inputs.corpus.select
    frame = _read_all_candidates(inputs)
    settings = rates_settings(select, corpus.seed, fingerprint(inputs.concepts and inputs.concepts.content))
    parent_folder = inputs.workspace.release_dir(plan.parent) if plan.parent else None
    parent_rates = read_rates(parent_folder / "rates.json", settings) if parent_folder else None
    rates = parent_rates or Rates(settings)
    if parent_rates is None and parent_folder:
        rates = read_lasting(parent_folder / "rates.json", settings)
    verdicts, cuts = judge(frame, select, inputs.scorer, rates.cuts, inputs.scores.fingerprints)
    drop_contaminated(inputs, frame, verdicts)
    rank = drop_duplicates(frame, verdicts, select.dedup)
    _drop_near_texts(inputs, frame, verdicts, rank)
    cluster, bounds = apply_cluster_rules(inputs, frame, verdicts, rank, folder, parent_folder, rates.density)
    verdicts.settle()
    cap_domains(frame, verdicts, select.balance, rank, corpus.seed)
    if inputs.concepts is not None and select.balance.concepts_by == "embedding":
        frame = frame.with_columns(_concepts_by_embedding(inputs, inputs.concepts, frame, verdicts))
    decision = balance_and_repeat(
        frame,
        verdicts,
        cluster,
        select,
        corpus.seed,
        corpus.shards.validation_fraction,
        replace(rates, cuts=cuts, density=bounds),
        inputs.concepts,
        sticky=parent_rates is not None,
    )
    write_rates(folder / "rates.json", decision.rates)
    write_selection(folder / "selection.parquet", frame, inputs.slices, verdicts, cluster, decision)


def _list_slices(workspace: Workspace, parts: Sequence[Part]) -> list[Slice]:
    slices = []
    for part in parts:
        part_stamp = workspace.part_stamp(part.name, "rows")
        for name in part_stamp.slices if part_stamp else ():
            stamp = workspace.slice_stamp(part.name, "rows", name)
            if stamp is None:
                remedy = redo_remedy(part.name, "rows", name)
                raise DataError(f"part {part.name}, slice {name}: its stamp is missing. {remedy}")
            slices.append(Slice(part.name, name, stamp.rows))
    return slices


def _common_scorer(workspace: Workspace, slices: Sequence[Slice]) -> str:
    """The fingerprint of the scorer that all features come from. Raises DataError where they come from several."""
    first_parts: dict[str, tuple[str, str]] = {}
    for part_slice in slices:
        scorer = read_scorer_mark(workspace.table(part_slice.part, "features", part_slice.name))
        first_parts.setdefault(scorer.fingerprint, (scorer.name, part_slice.part))
    if len(first_parts) > 1:
        lines = "\n".join(
            f"  {name} ({key}), first in part {part}" for key, (name, part) in sorted(first_parts.items())
        )
        raise DataError(
            f"the parts were scored by {len(first_parts)} different models, and their scores do not compare:\n"
            f"{lines}\nRemedy: `mmdata build --redo PART:features` for the parts of the model that you do not want."
        )
    return next(iter(first_parts), "")


def _read_all_candidates(inputs: SelectionInputs) -> pl.DataFrame:
    slices, balance = inputs.slices, inputs.corpus.select.balance
    by_text = inputs.concepts is not None and balance.concepts_by == "text"
    matcher = ConceptMatcher(inputs.concepts, balance.concepts_ignore_case) if inputs.concepts and by_text else None
    if matcher is not None and (never := unmatchable(matcher.concepts)):
        _log.info("concepts that no caption can name", concepts=len(never), first=never[0])
    total = sum(part_slice.rows for part_slice in slices)
    frames, rows_read, first = [], 0, 0
    while first < len(slices):
        batch = _next_batch(slices, first)
        select, recaption = inputs.corpus.select, inputs.corpus.recaption
        frames.append(read_candidates(inputs.workspace, batch, first, select, matcher, recaption, inputs.scores))
        first += len(batch)
        rows_read += len(frames[-1])
        inputs.progress("selection", rows_read, total)
    return merge_candidates(frames)


def _next_batch(slices: Sequence[Slice], first: int) -> Sequence[Slice]:
    """The slices from `first` on, up to about `BATCH_ROWS` rows."""
    rows = 0
    for stop in range(first, len(slices)):
        rows += slices[stop].rows
        if rows >= BATCH_ROWS:
            return slices[first : stop + 1]
    return slices[first:]


def _drop_near_texts(inputs: SelectionInputs, frame: pl.DataFrame, verdicts: Verdicts, rank: np.ndarray) -> None:
    """Drop texts that are nearly those of a better row. Only the captions of the texts that are left are read."""
    similarity = inputs.corpus.select.dedup.text_similarity
    rows = np.flatnonzero((verdicts.codes == 0) & is_kind(frame, "text"))
    if similarity is None or len(rows) < 2:
        return
    texts = read_captions(
        inputs.tables("rows"), frame["place"].gather(rows).to_numpy(), frame["row"].gather(rows).to_numpy()
    )
    drop_followers(verdicts, rows, near_text_leaders(texts, rank[rows], similarity), "duplicate:text")


def _concepts_by_embedding(
    inputs: SelectionInputs, concepts: Concepts, frame: pl.DataFrame, verdicts: Verdicts
) -> pl.Series:
    """The concepts of the kept rows that have an embedding; null elsewhere."""
    corpus, kept = inputs.corpus, verdicts.kept()
    place, row = frame["place"].gather(kept).to_numpy(), frame["row"].gather(kept).to_numpy()
    advance = inputs.embedding_counter(len(kept))
    with gather_embeddings(inputs.tables("features"), place, row, advance) as (embeddings, positions):
        if len(positions) == 0:
            return pl.Series("concepts", [None] * len(frame), dtype=pl.List(pl.UInt32))
        vectors = concept_vectors(concepts.entries, corpus.score, inputs.scorer, inputs.workspace.scores_dir)
        nearest = nearest_concepts(embeddings, vectors, corpus.select.balance.concepts_top_k)
        return concepts_column(kept[positions], nearest, len(frame))
