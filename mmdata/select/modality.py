"""Balance over modality signatures: which rows stay, by exact quotas on the lowest draws, and how often."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import polars as pl

from mmdata.config import Balance, Oversample
from mmdata.select.mix import Target, targets
from mmdata.select.rates import Rates, near


@dataclass(frozen=True, slots=True)
class SignatureRates:
    """What balance decides about each signature.

    Args:
        totals: what there is, in whole units of `balance.by` (seconds as milliseconds).
        rates: a row stays if its draw is below.
        factors: how often a row that stays is repeated, on average; empty by `max_ratio`, which repeats nothing.
    """

    totals: dict[str, int]
    rates: dict[str, float]
    factors: dict[str, float]


def signature_rates(
    frame: pl.DataFrame, balance: Balance, oversample: Oversample, parent: Rates | None = None
) -> SignatureRates:
    """The rate and the repeat factor of each signature.

    The rate is set just above the k-th smallest draw, k being what the signature's quota holds, so quotas are exact,
    no order of rows matters, and at an equal rate added rows change nothing for the old ones.

    Args:
        frame: signature, draw (float64 in [0, 1)) and weight (whole: 1 a sample, its tokens or its milliseconds).
        parent: the parent release's; a rate stays while what it keeps is within `tolerance` of the quota, a factor
            while it is within `tolerance` of the wanted one.

    Raises:
        DataError: a mix or a size cannot be had; see `mix.targets`.
    """
    signature = pl.col("signature").cast(pl.String)
    sums = frame.group_by(signature).agg(pl.col("weight").cast(pl.Int64).sum()).sort("signature")
    totals: dict[str, int] = dict(sums.iter_rows())
    wanted = signature_targets(totals, balance, oversample)
    quotas = {name: target.kept for name, target in wanted.items()}
    factors = {} if balance.by_ratio else {name: target.factor for name, target in wanted.items()}
    if parent is not None:
        for name, factor in factors.items():
            known = parent.signature.get(name, 1.0)
            factors[name] = known if near(known, factor, balance.tolerance) else factor
    rates = {}
    for name, total in totals.items():
        before = None if parent is None else parent.modality.get(name)
        rates[name] = 1.0
        if quotas[name] == total and before in (None, 1.0):
            continue
        members = frame.filter(pl.col("signature") == name)
        draws, weights = members["draw"].to_numpy(), members["weight"].to_numpy()
        if quotas[name] < total:
            rates[name] = rate_for(draws, weights, quotas[name])
        if before is not None and near(
            int(weights[draws < before].sum(dtype=np.int64)), quotas[name], balance.tolerance
        ):
            rates[name] = before
    return SignatureRates(totals, rates, factors)


def signature_targets(totals: Mapping[str, int], balance: Balance, oversample: Oversample) -> dict[str, Target]:
    """What balance makes of each signature, by whichever rule is set. Raises DataError; see `mix.targets`."""
    if not balance.by_ratio:
        return targets(totals, balance, oversample)
    quotas = dict(totals)
    if balance.max_ratio is not None:
        quotas = capped_quotas(totals, balance.max_ratio, balance.tail_share)
    return {name: Target(total, quotas[name], quotas[name]) for name, total in totals.items()}


def rate_for(draws: np.ndarray, weights: np.ndarray, quota: int) -> float:
    """The rate that keeps as many rows of lowest draw as fit, by weight, into the quota."""
    if 0 < quota <= len(weights) and (weights == 1).all():
        return float(np.nextafter(np.partition(draws, quota - 1)[quota - 1], 2.0))
    order = np.argsort(draws, kind="stable")
    count = int(np.searchsorted(np.cumsum(weights[order], dtype=np.int64), quota, side="right"))
    return float(np.nextafter(draws[order[count - 1]], 2.0)) if count else 0.0


def capped_quotas(totals: Mapping[str, int], max_ratio: float, tail_share: float) -> dict[str, int]:
    """The quota of each signature by the rule of version 0.1: the largest is at most `max_ratio` times the smallest.

    A signature under `tail_share` of all, or with nothing to count (pictures and words have no seconds), does not set
    the cap (and is not capped by it).
    """
    least = tail_share * sum(totals.values())
    setting = [total for total in totals.values() if total > 0 and total >= least]
    if not setting:
        return dict(totals)
    cap = math.floor(min(setting) * Fraction(repr(max_ratio)))
    return {name: min(total, cap) for name, total in totals.items()}
