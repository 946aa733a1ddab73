"""Read features tables: which scorer made a table, whether the table is sound, and what it counts.

Scoring, selection, takedown, audits and releases all judge a features table by the rules in this file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from mmdata.documents import PICTURED
from mmdata.errors import DataError
from mmdata.storage.tables import raise_unless_broken, read_table, table_remedy
from mmdata.workspace.layout import PartStage, Workspace

MAX_ABS_COSINE = 1.001  # rounding may carry the cosine of two float32 unit vectors a little over 1


class ScorerMark(NamedTuple):
    """The scorer that made a features table. Scores of different fingerprints do not compare."""

    name: str
    fingerprint: str


def scorer_mark(metadata: Mapping[bytes, bytes] | None) -> ScorerMark | None:
    """The scorer that a features table's schema metadata names, or None where it names none."""
    mark = (metadata or {}).get(b"scorer")
    if mark is None:
        return None
    fields = json.loads(mark)
    return ScorerMark(fields["name"], fields["fingerprint"])


def read_scorer_mark(path: UPath) -> ScorerMark:
    """The scorer of a features table; reads only the file's footer.

    Raises:
        DataError: the file is missing, is not readable Parquet, or names no scorer; names the file.
        OSError: the disk or the network failed, which may pass.
    """
    try:
        with path.open("rb") as file:
            mark = scorer_mark(pq.read_schema(file).metadata)
    except (OSError, ValueError, TypeError, KeyError, pa.ArrowException) as error:
        raise_unless_broken(error)
        raise DataError(f"{path}: cannot be read as a features table ({error}). {table_remedy(path)}") from error
    if mark is None:
        raise DataError(f"{path}: names no scorer. {table_remedy(path)}")
    return mark


def read_slice_table(
    workspace: Workspace, part_name: str, stage: PartStage, slice_name: str, columns: Sequence[str]
) -> pl.DataFrame:
    """Some columns of a slice's rows, media or features table."""
    return pl.DataFrame(read_table(workspace.table(part_name, stage, slice_name), columns))


def is_cosine(score: pl.Expr) -> pl.Expr:
    """Whether a score is a cosine: a finite number from -1 to 1. Null where the score is null."""
    return score.is_between(-MAX_ABS_COSINE, MAX_ABS_COSINE)  # NaN and infinities lie outside of every range


def unsound_reason(features: pl.DataFrame, row_uids: pl.Series) -> str | None:
    """Why a features table cannot be used, or None: it must hold the uids of its rows in their order, and cosines."""
    if not features["uid"].equals(row_uids):
        return "its uids are not those of the slice's rows"
    scores = features["clip_score"].drop_nulls()
    if not scores.is_finite().all():
        return "holds scores that are not finite"
    if not features.select(is_cosine(pl.col("clip_score")).all()).item():
        return "holds scores that are not between -1 and 1"
    return None


def feature_counts(table: pa.Table, samples: pl.DataFrame) -> tuple[dict[str, int], dict[str, int]]:
    """Count the rows of a features table by what they have, and by their problem; `samples`: kind and status.

    The reason `recaption:…` counts pictures for which the model in `recaption.model` gave no caption.
    """
    has_texts = "text_embedding" in table.column_names  # tables of older versions have no such column
    problems = pl.Series(table["problem"]).drop_nulls().value_counts()
    with_media = samples.filter(pl.col("status") == "success", pl.col("kind").is_in(PICTURED)).height
    counts = {
        "rows": len(samples),
        "with_media": with_media,
        "without_media": len(samples) - with_media,
        "with_sound": table.num_rows - table["audio_rms_db"].null_count,
        "embedded": table.num_rows - table["embedding"].null_count,
        "scored": table.num_rows - table["clip_score"].null_count,
        "text_embedded": table.num_rows - table["text_embedding"].null_count if has_texts else 0,
    }
    reasons = {str(name): int(count) for name, count in problems.iter_rows()}
    if "generated_caption" in table.column_names:
        counts["generated_captions"] = table.num_rows - table["generated_caption"].null_count
        uncaptioned = pl.Series(table["generated_problem"]).drop_nulls().value_counts()
        reasons |= {f"recaption:{name}": int(count) for name, count in uncaptioned.iter_rows()}
    return counts, reasons
