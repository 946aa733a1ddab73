"""Balance over modality signatures: keep fewer samples of common ones, by exact quotas on the lowest draws."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction

import numpy as np
import polars as pl

from mmdata.config import Balance
from mmdata.errors import DataError
from mmdata.select.rates import near


def modality_rates(frame: pl.DataFrame, balance: Balance, known: Mapping[str, float] | None = None) -> dict[str, float]:
    """The rate of each signature: a row stays if its draw is below it.

    The rate is set just above the k-th smallest draw, k being what the signature's quota holds, so quotas are exact,
    no order of rows matters, and at an equal rate added rows change nothing for the old ones.

    Args:
        frame: signature, draw (float64 in [0, 1)) and weight (whole: 1 a sample, its tokens or its milliseconds).
        known: the parent release's rates; one stays while what it keeps is within `tolerance` of the quota.

    Raises:
        DataError: `mix` asks for more of a signature than there is; names it.
    """
    signature = pl.col("signature").cast(pl.String)
    sums = frame.group_by(signature).agg(pl.col("weight").cast(pl.Int64).sum()).sort("signature")
    totals: dict[str, int] = dict(sums.iter_rows())
    if balance.mix is not None:
        _check_counted(totals, balance)
        quotas = mix_quotas(totals, balance.mix, balance.tail_share)
    elif balance.max_ratio is not None:
        quotas = capped_quotas(totals, balance.max_ratio, balance.tail_share)
    else:
        return dict.fromkeys(totals, 1.0)
    rates = {}
    for name, total in totals.items():
        before = None if known is None else known.get(name)
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
    return rates


def _check_counted(totals: Mapping[str, int], balance: Balance) -> None:
    """Raise DataError if a mix gives a share to a signature without tokens or seconds to count."""
    wanted_names = {name for name, share in (balance.mix or {}).items() if share > 0}
    if bare := sorted(name for name in wanted_names & totals.keys() if totals[name] == 0):
        raise DataError(
            f"select.balance.mix asks for a share of `{bare[0]}`, whose samples have no {balance.by}. Remedy: "
            f"leave it out of the mix (it then stays whole), or set balance.by to what all of them have: samples."
        )


def rate_for(draws: np.ndarray, weights: np.ndarray, quota: int) -> float:
    """The rate that keeps as many rows of lowest draw as fit, by weight, into the quota."""
    if 0 < quota <= len(weights) and (weights == 1).all():
        return float(np.nextafter(np.partition(draws, quota - 1)[quota - 1], 2.0))
    order = np.argsort(draws, kind="stable")
    count = int(np.searchsorted(np.cumsum(weights[order], dtype=np.int64), quota, side="right"))
    return float(np.nextafter(draws[order[count - 1]], 2.0)) if count else 0.0


def capped_quotas(totals: Mapping[str, int], max_ratio: float, tail_share: float) -> dict[str, int]:
    """The quota of each signature, so that the largest is at most `max_ratio` times the smallest.

    A signature under `tail_share` of all, or with nothing to count (pictures and words have no seconds), does not set
    the cap (and is not capped by it).
    """
    least = tail_share * sum(totals.values())
    setting = [total for total in totals.values() if total > 0 and total >= least]
    if not setting:
        return dict(totals)
    cap = math.floor(min(setting) * Fraction(repr(max_ratio)))
    return {name: min(total, cap) for name, total in totals.items()}


def mix_quotas(totals: Mapping[str, int], mix: Mapping[str, float], tail_share: float) -> dict[str, int]:
    """Quotas of the largest release with exactly this mix, by largest remainder; 0 for signatures outside the mix.

    Raises:
        DataError: a signature is missing, or so short that keeping to the mix would leave less than `tail_share` of
            what there is.
    """
    given_shares = {name: Fraction(repr(share)) for name, share in mix.items() if share > 0}
    shares = {name: share / sum(given_shares.values()) for name, share in given_shares.items()}
    reach = {name: totals.get(name, 0) / share for name, share in shares.items()}
    scarce = min(reach, key=lambda name: (reach[name], name))
    size, everything = math.floor(reach[scarce]), sum(totals.values())
    if size <= 0 or size < Fraction(repr(tail_share)) * everything:
        raise DataError(
            f"select.balance.mix asks for {mix[scarce]:.0%} `{scarce}`, and there is {totals.get(scarce, 0)} of it "
            f"among {everything}: keeping to the mix would leave {size}. Remedy: gather more `{scarce}`, lower its "
            "share in the mix, or set a lower balance.tail_share."
        )
    quotas = largest_remainder(shares, size)
    return {name: quotas.get(name, 0) for name in totals}


def largest_remainder(shares: Mapping[str, Fraction], size: int) -> dict[str, int]:
    """Whole quotas with the exact sum `size`; the remaining ones go to the largest remainders, then by name."""
    exact = {name: share * size for name, share in shares.items()}
    quotas = {name: math.floor(value) for name, value in exact.items()}
    by_remainder = sorted(exact, key=lambda name: (quotas[name] - exact[name], name))
    for name in by_remainder[: size - sum(quotas.values())]:
        quotas[name] += 1
    return quotas
