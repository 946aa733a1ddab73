"""Caps by host and by registrable domain, so that no single site, which may be poisoned, makes up much of a corpus.

Without a list of public suffixes (a dependency whose data ages) the registrable domain follows from its form: the last
two labels, or the last three if the second-last is a public suffix of a country (`co.uk`, `com.au`). List other
suffixes, such as those of hosts with pages of many people, in `balance.domain_suffixes`.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from mmdata.config import Balance
from mmdata.samples import hash_words
from mmdata.select.verdicts import Verdicts
from mmdata.urls import host_name_expr, registrable_domain

REASON = "balance:domain_cap"


def columns(balance: Balance) -> list[pl.Expr]:
    """The columns that the caps need, as hashes: `host` and `domain` (UInt64; null without a URL), or none."""
    if not balance.caps_domains:
        return []
    named = {
        "host": host_name_expr(pl.col("url")),
        "domain": registrable_domain(host_name_expr(pl.col("url")), balance.domain_suffixes),
    }
    return [pl.when(expr.is_not_null()).then(expr.hash()).alias(name) for name, expr in named.items()]


def over_cap(group: pl.Series, order: np.ndarray, most: int) -> np.ndarray:
    """Rows beyond the cap of their group: all but the `most` rows of lowest order.

    Adding rows only ever takes places away from others: a row that goes now goes however many more come.

    Args:
        group: any hashable column; rows of null are not counted.
        order: distinct numbers, the lower the better.
    """
    frame = pl.DataFrame({"group": group, "order": order, "row": np.arange(len(group))})
    place = pl.col("order").rank("ordinal").over("group")
    return frame.filter(pl.col("group").is_not_null()).filter(place > most)["row"].sort().to_numpy()


def cap_domains(frame: pl.DataFrame, verdicts: Verdicts, balance: Balance, rank: np.ndarray, seed: int) -> None:
    """Drop the rows of a host, then of a registrable domain, that exceed its cap.

    Args:
        frame: candidates in uid order, with `columns`.
        verdicts: written into.
        rank: of every candidate, the best first (`dedup.preference`).
    """
    caps = {"host": balance.max_per_host, "domain": balance.max_per_domain}
    for name, most in caps.items():
        if most is None:
            continue
        kept = verdicts.kept()
        order = rank[kept] if balance.keep_of_domain == "score" else _draw_order(frame, kept, seed)
        verdicts.drop(kept[over_cap(frame[name].gather(kept), order, most)], REASON)


def _draw_order(frame: pl.DataFrame, rows: np.ndarray, seed: int) -> np.ndarray:
    """Random order, by hash. Rows are in uid order, which breaks ties."""
    high, low = frame["uid_high"].to_numpy()[rows], frame["uid_low"].to_numpy()[rows]
    order = np.empty(len(rows), np.int64)
    order[np.argsort(hash_words(high, low, seed, "domain"), kind="stable")] = np.arange(len(rows))
    return order
