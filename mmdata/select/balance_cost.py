"""What balance keeps, drops and repeats: told by `mmdata plan` before, by reports and `mmdata status` after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl
from upath import UPath

from mmdata.config import Select
from mmdata.errors import DataError
from mmdata.select.mix import Target
from mmdata.select.modality import signature_targets
from mmdata.select.rates import read_totals
from mmdata.storage.tables import scan_tables

MAX_QUIET_CUT = 0.5
"""A balance that drops a larger share of the samples is warned about."""
_SHOWN_SHORTFALL = 0.99  # of what a mix asks for; rounding alone is no shortfall


@dataclass(frozen=True, slots=True)
class BalanceCost:
    """What the balance of signatures would do, by the counts of a selection.

    Args:
        of: the release whose selection was counted.
        unit: `samples`, `tokens` or `seconds`.
        signatures: signature -> before, kept (each once), copies, in that unit.
        concepts: samples that concepts dropped in that selection; None: concepts are not balanced.
        cut: the warning that most is dropped, if it is.
        shortfalls: where a mix is not met, or why it cannot be had; each with its remedy.
    """

    of: str
    unit: str
    signatures: Mapping[str, tuple[int, int, int]]
    concepts: int | None
    cut: tuple[str, ...] = ()
    shortfalls: tuple[str, ...] = ()

    def line(self) -> str:
        """The cost in one line."""
        if not self.signatures and not self.shortfalls:
            return f"what balance by {self.unit} would keep is known after the next selection"
        before, kept, copies = (sum(figures[at] for figures in self.signatures.values()) for at in range(3))
        parts = [f"{name} {there:,} -> {after:,}" for name, (there, _, after) in self.signatures.items()]
        share = f"{kept / before:.1%}" if before else "none"
        repeated = f", {copies:,} with copies" if copies > kept else ""
        further = "" if self.concepts is None else f"; concepts dropped {self.concepts:,} more in {self.of}"
        return f"balance would keep {kept:,} of {before:,} {self.unit} ({share}){repeated}: {'; '.join(parts)}{further}"


def balance_cost(select: Select, folder: UPath, release: str) -> BalanceCost | None:
    """The cost of the balance that `select` asks for, by the counts of a selection that was made.

    Args:
        folder: of the release, with selection.parquet and rates.json; None is returned before the first selection.
    """
    path, balance = folder / "selection.parquet", select.balance
    if not path.exists():
        return None
    signature = pl.col("signature")
    reached = pl.col("keep") | pl.col("reason").is_in(["balance:modality", "balance:concept"])
    counted = (
        scan_tables([path], ["signature", "keep", "reason"])
        .filter(reached)
        .group_by(signature)
        .agg(pl.len(), (pl.col("reason") == "balance:concept").sum().alias("by_concept"))
        .collect(engine="streaming")
    )
    samples = {str(name): int(rows) for name, rows, _ in counted.iter_rows()}
    concepts = int(counted["by_concept"].sum()) if balance.concepts else None
    totals = samples if balance.by == "samples" else read_totals(folder / "rates.json").get(balance.by)
    if totals is None:
        return BalanceCost(release, balance.by, {}, concepts)
    try:
        targets = signature_targets(totals, balance, select.oversample)
    except DataError as error:
        return BalanceCost(release, balance.by, {}, concepts, shortfalls=(str(error),))
    scale = 1000 if balance.by == "seconds" else 1
    ordered = sorted(targets.items(), key=lambda item: (-item[1].total, item[0]))
    figures = {
        name: (round(target.total / scale), round(target.kept / scale), round(target.copies / scale))
        for name, target in ordered
    }
    kept, before = sum(target.kept for target in targets.values()), sum(totals.values())
    cut = _cut_warning(before - kept, before, balance.by, scale)
    return BalanceCost(release, balance.by, figures, concepts, tuple(cut), tuple(_shortfalls(targets, select)))


def _shortfalls(targets: Mapping[str, Target], select: Select) -> list[str]:
    """A warning for each signature that stays under its share of a mix, though it is repeated as often as it may be."""
    if select.balance.mix is None:
        return []
    wanted, copies = (sum(getattr(target, name) for target in targets.values()) for name in ("wanted", "copies"))
    return [
        f"select.balance.mix asks for {target.wanted / wanted:.1%} `{name}` and gets {target.copies / copies:.1%}: "
        f"what there is comes {target.factor:.2g} times, and at most {select.balance.max_loss:.0%} of all is dropped. "
        f"Remedy: gather more `{name}`, lower its share, or raise select.oversample.max_repeats or "
        "select.balance.max_loss."
        for name, target in sorted(targets.items())
        if target.copies < _SHOWN_SHORTFALL * target.wanted
    ]


def cut_warnings(counts: Mapping[str, Any], reasons: Mapping[str, int]) -> list[str]:
    """A warning if balance dropped most of what passed filters and dedup.

    Args:
        counts, reasons: of a selection or of a manifest.
    """
    dropped = sum(rows for reason, rows in reasons.items() if reason.startswith("balance:"))
    return _cut_warning(dropped, dropped + int(counts.get("kept", 0)), "samples", 1)


def _cut_warning(dropped: int, before: int, unit: str, scale: int) -> list[str]:
    if dropped <= MAX_QUIET_CUT * before:
        return []
    return [
        f"balance drops {dropped / scale:,.0f} of {before / scale:,.0f} {unit} ({dropped / before:.1%}). Remedy: "
        "`mmdata plan` shows what each signature loses; leave select.balance.max_ratio out (the default thins "
        "nothing), lower select.balance.max_loss, or raise select.balance.size, concept_cap or max_per_domain."
    ]
