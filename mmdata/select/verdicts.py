"""Why each row was dropped, and which row stays instead: two compact arrays that the steps write into."""

from __future__ import annotations

import numpy as np
import polars as pl

STAYS = -1
"""The leader of a row that is no duplicate."""


class Verdicts:
    """The decisions so far on n rows.

    Attributes:
        codes: uint16, 0 while a row is kept, else the place of its reason in `names`.
        leaders: int32, the row that a duplicate was dropped for; `STAYS` elsewhere.
    """

    def __init__(self, reasons: pl.Series) -> None:
        """Start from a reason (string or categorical) or null for each row."""
        names = sorted(str(name) for name in reasons.drop_nulls().unique())
        self.names: list[str] = ["", *names]
        if names:
            codes = reasons.cast(pl.Enum(names)).to_physical().cast(pl.UInt16) + 1
            self.codes = codes.fill_null(0).to_numpy().copy()
        else:
            self.codes = np.zeros(len(reasons), np.uint16)
        self.leaders = np.full(len(reasons), STAYS, np.int32)

    def kept(self) -> np.ndarray:
        """The rows that are not dropped yet, in order."""
        return np.flatnonzero(self.codes == 0)

    def drop(self, rows: np.ndarray, reason: str, leaders: np.ndarray | None = None) -> None:
        """Drop rows for a reason; `leaders` are the rows that stay instead."""
        if len(rows) == 0:
            return
        if reason not in self.names:
            self.names.append(reason)
        self.codes[rows] = self.names.index(reason)
        if leaders is not None:
            self.leaders[rows] = leaders

    def settle(self) -> None:
        """Replace leaders that were dropped as duplicates by their own leaders, until each is a row that is none."""
        rows = np.flatnonzero(self.leaders != STAYS)
        while len(rows):
            further = self.leaders[self.leaders[rows]]
            rows, further = rows[further != STAYS], further[further != STAYS]
            self.leaders[rows] = further

    def reasons(self, rows: slice = slice(None)) -> pl.Series:
        """The reasons as text; null where a row is kept."""
        codes = pl.Series("reason", self.codes[rows])
        return codes.replace_strict(list(range(len(self.names))), [None, *self.names[1:]], return_dtype=pl.String)
