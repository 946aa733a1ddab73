"""What a features table comes to."""

from __future__ import annotations

import polars as pl
import pyarrow as pa


def feature_counts(table: pa.Table, samples: pl.DataFrame) -> tuple[dict[str, int], dict[str, int]]:
    """Counts, and problems by name, of a features table.

    Args:
        samples: kind and status of its rows.
    """
    problems = pl.Series(table["problem"]).drop_nulls().value_counts()
    with_media = samples.filter(pl.col("status") == "success", pl.col("kind").is_in(["image", "video"])).height
    counts = {
        "rows": len(samples),
        "with_media": with_media,
        "without_media": len(samples) - with_media,
        "with_sound": table.num_rows - table["audio_rms_db"].null_count,
        "embedded": table.num_rows - table["embedding"].null_count,
        "scored": table.num_rows - table["clip_score"].null_count,
    }
    return counts, {str(name): int(count) for name, count in problems.iter_rows()}
