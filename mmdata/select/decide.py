"""Decides about all candidates, in this order: filter, duplicates, balance, repeats, split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from mmdata.config import Balance, Dedup, Oversample, Select
from mmdata.config.concept_list import Concepts
from mmdata.config.presets import resolve
from mmdata.documents import DOCUMENT
from mmdata.samples import hash_words, unit_interval
from mmdata.select.concepts import concept_caps, concept_rates, flatten, keep_probability, rarest
from mmdata.select.cuts import Cut
from mmdata.select.dedup import near_hashes, preference, same_value
from mmdata.select.modality import SignatureRates, signature_rates
from mmdata.select.oversample import cluster_threshold, repeat_factors, round_by_draw, signature_factors
from mmdata.select.rates import Rates, keep_within_tolerance
from mmdata.select.split import in_validation
from mmdata.select.top_fractions import drop_below_tops
from mmdata.select.verdicts import STAYS, Verdicts

NO_CLUSTER = -1
KINDS = ("image", "video", "audio", "text", DOCUMENT)


@dataclass(frozen=True, slots=True)
class Decision:
    """The decisions about n candidates, in their order.

    Args:
        concept: int32, place in `concept_names` of what a row's rarity is counted by; -1: nothing.
        rate: float64, keep probability after balancing; 0 for rows dropped before.
        repeats: int32.
        validation: bool, among the kept.
        rates: rates that the next release keeps while they fit.
    """

    concept: np.ndarray
    concept_names: Sequence[str]
    rate: np.ndarray
    repeats: np.ndarray
    validation: np.ndarray
    rates: Rates


def judge(
    frame: pl.DataFrame,
    select: Select,
    scorer: str = "",
    parent: Mapping[str, Cut] | None = None,
    fingerprints: Mapping[str, str] | None = None,
) -> tuple[Verdicts, dict[str, Cut]]:
    """Filter all candidates, by the rules on single rows and by the top fractions (see `drop_below_tops`).

    Args:
        frame: candidates, in uid order.
        scorer: fingerprint of the scorer.
        parent: the parent release's cuts, kept within `filter.top_fraction_tolerance`.
        fingerprints: of the scores that are computed from vectors.

    Returns:
        The verdicts; rule -> where its top fraction ended.
    """
    verdicts = Verdicts(frame["reason"])
    return verdicts, drop_below_tops(frame, verdicts, resolve(select.filter), scorer, fingerprints or {}, parent or {})


def drop_duplicates(frame: pl.DataFrame, verdicts: Verdicts, dedup: Dedup) -> np.ndarray:
    """Drop the duplicates that metadata shows: URL (with a clip's times), SHA-256, perceptual hash.

    Samples of different kinds are never duplicates: a video's sound alone is another sample than the video. Clips with
    other words are none by perceptual hash.

    Returns:
        The rank of every row (see `preference`), for the semantic step.
    """
    rank = preference(frame["clip_score"].fill_null(float("nan")).to_numpy())
    for kind in KINDS:
        kept = np.flatnonzero((verdicts.codes == 0) & is_kind(frame, kind))
        for name, wanted in (("url", dedup.url), ("sha256", dedup.exact), ("phash", dedup.phash_bits is not None)):
            if not wanted or not len(kept):
                continue
            values, ranks = frame[name].gather(kept), rank[kept]
            if name == "phash":
                words = frame["words"].gather(kept) if kind == "video" else None
                same = near_hashes(values, ranks, dedup.phash_bits or 0, words)
            else:
                same = same_value(values, ranks)
            kept = drop_followers(verdicts, kept, same, f"duplicate:{name}")
    return rank


def is_kind(frame: pl.DataFrame, kind: str) -> np.ndarray:
    """Which candidates are of this kind, bool (n,)."""
    return (frame["kind"] == kind).fill_null(value=False).to_numpy()


def drop_followers(verdicts: Verdicts, rows: np.ndarray, leaders: np.ndarray, reason: str) -> np.ndarray:
    """Drop the rows that have a leader (places within `rows`); returns the rows that stay."""
    dropped = leaders != STAYS
    verdicts.drop(rows[dropped], reason, rows[leaders[dropped]])
    return rows[~dropped]


def balance_and_repeat(
    frame: pl.DataFrame,
    verdicts: Verdicts,
    cluster: np.ndarray,
    select: Select,
    seed: int,
    validation_fraction: float,
    rates: Rates,
    concepts: Concepts | None = None,
    sticky: bool = False,
) -> Decision:
    """Balance the remaining rows over modalities and concepts, repeat rare ones, and hold out validation clusters.

    Args:
        frame: candidates.
        verdicts: written into.
        cluster: int32, one a candidate; negative: none.
        rates: the parent release's, or ones that hold no more than its `held_out`; with this release's cuts.
        concepts: the concept lists, where `frame` has matches.
        sticky: whether `rates` are a parent's.
    """
    rate = np.zeros(len(frame))
    parent = rates if sticky else None
    balanced = _balance_modalities(frame, verdicts, select, seed, parent, rate)
    names: Sequence[str]
    if concepts is None:
        concept, names = _cluster_concepts(frame, cluster)
        concept_p: dict[str, float] = {}
    else:
        names = concepts.names
        concept, concept_p = _balance_concepts(frame, verdicts, select.balance, seed, concepts, parent, rate)
    kept = verdicts.kept()
    validation = np.zeros(len(frame), bool)
    columns = frame[kept].select("uid_high", "uid_low", "url", "sha256", "file")
    held, held_draw = in_validation(
        columns.with_columns(pl.Series("cluster", cluster[kept])), validation_fraction, seed, rates.held_out
    )
    validation[kept[held]] = True
    factors = _factors(frame, kept, concept, len(names), concepts is not None, select.oversample)
    if parent is not None:
        before = np.array([parent.repeat.get(name, 1.0) for name in names])
        factors = keep_within_tolerance(factors, before, select.balance.tolerance)
    signature = frame["signature"].gather(kept).cast(pl.String)
    of_signature = balanced.factors
    if select.balance.by_ratio:
        known = None if parent is None else parent.signature
        of_signature = signature_factors(signature, select.oversample, known, select.balance.tolerance)
    signature_factor = (
        signature.replace_strict(of_signature, return_dtype=pl.Float64).to_numpy() if len(kept) else np.empty(0)
    )
    repeats = _repeat(frame, kept, concept, factors, concepts is not None, signature_factor, seed)
    repeats[validation] = 1
    repeat = {names[int(i)]: float(factors[i]) for i in np.flatnonzero(factors != 1.0)}
    return Decision(
        concept.astype(np.int32),
        names,
        rate,
        repeats,
        validation,
        replace(
            rates,
            modality=balanced.rates,
            concept=concept_p,
            repeat=repeat,
            signature={name: factor for name, factor in of_signature.items() if factor != 1.0},
            held_out=held_draw,
            totals={} if select.balance.by == "samples" else {select.balance.by: balanced.totals},
        ),
    )


def draws_of(frame: pl.DataFrame, rows: np.ndarray, seed: int, stage: str) -> np.ndarray:
    """`samples.draws` for some candidates."""
    high, low = frame["uid_high"].to_numpy()[rows], frame["uid_low"].to_numpy()[rows]
    return unit_interval(hash_words(high, low, seed, stage))


def _balance_modalities(
    frame: pl.DataFrame, verdicts: Verdicts, select: Select, seed: int, parent: Rates | None, rate: np.ndarray
) -> SignatureRates:
    kept = verdicts.kept()
    draws = draws_of(frame, kept, seed, "modality")
    signature = frame["signature"].gather(kept)
    weight = (
        frame["weight"].gather(kept)
        if "weight" in frame.columns
        else pl.repeat(1, len(kept), dtype=pl.Int32, eager=True)
    )
    samples = pl.DataFrame([signature, pl.Series("draw", draws), weight.alias("weight")])
    balanced = signature_rates(samples, select.balance, select.oversample, parent)
    if balanced.rates:
        sample_rates = (
            signature.cast(pl.String)
            .replace_strict(list(balanced.rates), list(balanced.rates.values()), return_dtype=pl.Float64)
            .to_numpy()
        )
        rate[kept] = sample_rates
        verdicts.drop(kept[draws >= sample_rates], "balance:modality")
    return balanced


def _cluster_concepts(frame: pl.DataFrame, cluster: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Concepts if no list is configured: cluster and signature, such as `c17 image+text`."""
    signatures = sorted(str(name) for name in frame["signature"].unique())
    code = frame["signature"].cast(pl.Enum(signatures)).to_physical().cast(pl.Int32).to_numpy()
    concept = np.where(cluster >= 0, cluster * len(signatures) + code, -1)
    clusters = int(cluster.max(initial=-1)) + 1
    return concept, [f"c{number} {signature}" for number in range(clusters) for signature in signatures]


def _balance_concepts(
    frame: pl.DataFrame,
    verdicts: Verdicts,
    balance: Balance,
    seed: int,
    concepts: Concepts,
    parent: Rates | None,
    rate: np.ndarray,
) -> tuple[np.ndarray, dict[str, float]]:
    """MetaCLIP's balance of the rows of `concept_kinds` that a list applies to.

    The other rows are neither counted nor thinned: what is said in a video need not name what the list holds.

    Returns:
        Each row's rarest concept; the p_e below 1.
    """
    kept, names = verdicts.kept(), concepts.names
    of_thinned_kind = frame["kind"].cast(pl.String).is_in(list(balance.concept_kinds)).to_numpy()[kept]
    row, matched = flatten(frame["concepts"].gather(kept))
    row, matched = row[of_thinned_kind[row]], matched[of_thinned_kind[row]]
    counts = np.bincount(matched, minlength=len(names))
    p = concept_rates(counts, concept_caps(counts, balance.concept_cap, concepts.languages))
    if parent is not None:
        p = keep_within_tolerance(p, np.array([parent.concept.get(name, 1.0) for name in names]), balance.tolerance)
    probability = keep_probability(len(kept), row, matched, p)
    has_list = frame["concepts"].gather(kept).is_not_null().to_numpy()
    probability[~(has_list & of_thinned_kind)] = 1.0
    rate[kept] *= probability
    verdicts.drop(kept[draws_of(frame, kept, seed, "concept") >= probability], "balance:concept")
    row, matched = flatten(frame["concepts"])
    return rarest(len(frame), row, matched, counts), {names[int(i)]: float(p[i]) for i in np.flatnonzero(p < 1)}


def _factors(
    frame: pl.DataFrame, kept: np.ndarray, concept: np.ndarray, names: int, listed: bool, oversample: Oversample
) -> np.ndarray:
    """The repeat factor of each concept, by its share of the kept rows."""
    if oversample.max_repeats == 1 or oversample.threshold == 0:
        return np.ones(names)
    named = flatten(frame["concepts"].gather(kept))[1] if listed else concept[kept][concept[kept] >= 0]
    counts = np.bincount(named, minlength=names)
    threshold = oversample.threshold
    if not listed:
        threshold = cluster_threshold(threshold, int((counts > 0).sum()))
    return repeat_factors(counts, len(kept), threshold, oversample.max_repeats)


def _repeat(
    frame: pl.DataFrame,
    kept: np.ndarray,
    concept: np.ndarray,
    factors: np.ndarray,
    listed: bool,
    of_signature: np.ndarray,
    seed: int,
) -> np.ndarray:
    """Repeats of each row: the largest factor of its concepts and its signature, rounded by its draw; 0 if dropped."""
    sample_factors = of_signature.copy()
    if listed:
        row, matched = flatten(frame["concepts"].gather(kept))
        np.maximum.at(sample_factors, row, factors[matched])
    else:
        named = concept[kept] >= 0
        sample_factors[named] = np.maximum(sample_factors[named], factors[concept[kept][named]])
    repeats = np.zeros(len(frame), np.int32)
    repeats[kept] = round_by_draw(sample_factors, draws_of(frame, kept, seed, "repeat"))
    return repeats
