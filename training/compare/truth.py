"""What is known of pairs beside the corpus: whether the caption is true, and of which kind the picture is."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from mmdata.demo.demo_summary import TRUE_PAIRS
from mmdata.errors import UserError

_COLUMNS = {"true_pair": pl.Boolean, "original": pl.String, "kind": pl.String}


def with_truth(frame: pl.DataFrame, truth: Path | None) -> pl.DataFrame:
    """Add true_pair, original (the uid of the pair that it copies) and kind; null where they are not known.

    Args:
        frame: has `uid`.
        truth: Parquet or CSV with uid; `true_pair` or the demo's `planted`; perhaps `concept` or `kind`, and `of_uid`.

    Raises:
        UserError: the table cannot be read, lacks these columns, or knows none of the pairs.
    """
    if truth is None:
        return frame.with_columns(pl.lit(None, dtype).alias(name) for name, dtype in _COLUMNS.items())
    try:
        table = pl.read_csv(truth) if truth.suffix == ".csv" else pl.read_parquet(truth)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise UserError(f"--truth {truth}: cannot be read as a table ({error})") from None
    if "planted" in table.columns:
        table = table.sort(pl.col("planted") == "repeated_row")
        true_pair = pl.col("planted").is_in(sorted(TRUE_PAIRS))
    else:
        true_pair = pl.col("true_pair").cast(pl.Boolean, strict=False)
    if "uid" not in table.columns or not {"planted", "true_pair"} & set(table.columns):
        raise UserError(
            f"--truth {truth}: has the columns {', '.join(table.columns)}. Remedy: it needs `uid` and `true_pair`."
        )
    kind = next((pl.col(name) for name in ("concept", "kind") if name in table.columns), pl.lit(None))
    original = pl.col("of_uid") if "of_uid" in table.columns else pl.lit(None)
    known = table.unique("uid", keep="first", maintain_order=True).select(
        "uid",
        true_pair.alias("true_pair"),
        original.cast(pl.String).alias("original"),
        kind.cast(pl.String).alias("kind"),
    )
    joined = frame.join(known, on="uid", how="left", maintain_order="left")
    if not joined["true_pair"].is_not_null().any():
        raise UserError(
            f"--truth {truth}: knows none of the {len(frame):,} pairs. Remedy: its uids must be the corpus's."
        )
    return joined
