"""The mix of modalities that a release is to have: what is kept and what is repeated of each signature.

Pure arithmetic over the total of each signature. Every figure is a continuous function of the totals, so that one
sample more or less never moves many others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from mmdata.config import Balance, Oversample
from mmdata.errors import DataError

_ROUNDING = 1 + 1e-9


@dataclass(frozen=True, slots=True)
class Target:
    """What balance makes of one signature, in the unit of `balance.by` (seconds as milliseconds).

    Args:
        total: what there is.
        wanted: what the mix asks for.
        copies: what the release holds, copies included; less than `wanted` where repeating and thinning do not suffice.
    """

    total: int
    wanted: float
    copies: float

    @property
    def kept(self) -> int:
        """How much of the total stays, each counted once."""
        return min(self.total, round(self.copies))

    @property
    def factor(self) -> float:
        """How often what stays is repeated, on average; at least 1."""
        factor = self.copies / self.total if self.total else 1.0
        return factor if factor > _ROUNDING else 1.0


def targets(totals: Mapping[str, int], balance: Balance, oversample: Oversample) -> dict[str, Target]:
    """The target of each signature by `balance.mix`, or by `balance.alpha`.

    By alpha the shares are n^alpha / sum n^alpha (mT5, Xue et al. 2021). Without a size nothing is thinned: the most
    common signature stays as it is, and the others come up to it, each repeated at most `max_repeats` times.

    A mix without a size has the smallest size at which nothing is thinned, if repeating fills every share; else the
    smallest at which `max_loss` of what there is, or less, is thinned.

    A signature whose total is 0 (pictures have no seconds) is left as it is.

    Raises:
        DataError: the mix names what is not there; the size is beyond what repeating gives. Names the signature.
    """
    bound = oversample.max_repeats if oversample.signatures else 1
    counted = {name: total for name, total in sorted(totals.items()) if total > 0}
    if balance.mix is not None:
        shares = _mix_shares(totals, balance)
    else:
        powers = {name: total ** (balance.alpha or 0.0) for name, total in counted.items()}
        shares = {name: power / math.fsum(powers.values()) for name, power in powers.items()}
    found = {name: Target(total, total, total) for name, total in totals.items()}
    if not shares:
        return found
    counts = {name: counted[name] for name in shares}
    wanted_size = None if balance.size is None else balance.size * (1000 if balance.by == "seconds" else 1)
    if wanted_size is None:
        size = _smallest_size(counts, shares, bound, balance.max_loss if balance.mix is not None else 0.0)
        scale = size
    else:
        size = wanted_size
        _check_size(counts, shares, bound, balance, size)
        scale = _filling_scale(counts, shares, bound, size)
    for name, total in counted.items():
        share = shares.get(name, 0.0)
        found[name] = Target(total, share * size, min(share * scale, bound * total))
    return found


def _mix_shares(totals: Mapping[str, int], balance: Balance) -> dict[str, float]:
    mix = {name: share for name, share in sorted((balance.mix or {}).items()) if share > 0}
    if bare := [name for name in mix if name in totals and totals[name] == 0]:
        raise DataError(
            f"select.balance.mix asks for a share of `{bare[0]}`, whose samples have no {balance.by}. Remedy: "
            "leave it out of the mix (it then stays whole), or set balance.by to what all of them have: samples."
        )
    if missing := [name for name in mix if name not in totals]:
        raise DataError(
            f"select.balance.mix asks for {mix[missing[0]]:.0%} `{missing[0]}`, and there is none of it among "
            f"{_amount(sum(totals.values()), balance)}. Remedy: gather `{missing[0]}`, or take it out of the mix."
        )
    whole = math.fsum(mix.values())
    return {name: share / whole for name, share in mix.items()}


def _smallest_size(counts: Mapping[str, int], shares: Mapping[str, float], bound: int, max_loss: float) -> float:
    """The smallest size that repeating can fill while it thins nothing; else that thins `max_loss` or less."""
    reach = {name: total / shares[name] for name, total in counts.items()}
    whole, filled = max(reach.values()), bound * min(reach.values())
    return whole if whole <= filled else max(filled, _size_at_loss(counts, shares, max_loss))


def _size_at_loss(counts: Mapping[str, int], shares: Mapping[str, float], max_loss: float) -> float:
    """The size T at which sum max(0, n - share * T) = max_loss * sum n."""
    by_reach = sorted(counts, key=lambda name: (-counts[name] / shares[name], name))
    lost = max_loss * sum(counts.values())
    thinned_total, thinned_share = 0, 0.0
    for name, following in zip(by_reach, [*by_reach[1:], None], strict=True):
        thinned_total += counts[name]
        thinned_share += shares[name]
        size = (thinned_total - lost) / thinned_share
        if following is None or size >= counts[following] / shares[following]:
            return max(size, 0.0)
    raise AssertionError("the last signature returns")


def _filling_scale(counts: Mapping[str, int], shares: Mapping[str, float], bound: int, size: float) -> float:
    """The scale s at which sum min(share * s, bound * n) = size: shares that run out pass the rest to the others."""
    by_reach = sorted(counts, key=lambda name: (counts[name] / shares[name], name))
    rest, share_left = float(size), math.fsum(shares.values())
    for name in by_reach:
        scale = rest / share_left
        if scale * shares[name] <= bound * counts[name] * _ROUNDING:
            return scale
        rest -= bound * counts[name]
        share_left -= shares[name]
    return math.inf  # only by rounding: everything is repeated as often as it may be


def _check_size(
    counts: Mapping[str, int], shares: Mapping[str, float], bound: int, balance: Balance, size: int
) -> None:
    """Raise DataError if the size needs more copies than `max_repeats` allows."""
    what, total, wanted = "the samples", sum(counts.values()), float(size)
    if balance.mix is not None:
        scarce = max(counts, key=lambda name: (shares[name] / counts[name], name))
        what, total, wanted = f"`{scarce}`", counts[scarce], shares[scarce] * size
    if wanted > bound * total * _ROUNDING:
        raise DataError(
            f"select.balance.size: {balance.size:,} {balance.by} need {_amount(wanted, balance)} of {what}, and there "
            f"are {_amount(total, balance)}, which may be repeated {bound} times. Remedy: gather more, lower "
            "select.balance.size or the share in select.balance.mix, or raise select.oversample.max_repeats."
        )


def _amount(value: float, balance: Balance) -> str:
    return f"{value / (1000 if balance.by == 'seconds' else 1):,.0f} {balance.by}"
