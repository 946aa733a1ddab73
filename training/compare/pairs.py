"""The pairs that a comparison works with: what tells them apart, read from the tables of a workspace."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import polars as pl
from upath import UPath

from mmdata.errors import DataError, UserError
from mmdata.score.features_reader import ScorerMark, read_scorer_mark
from mmdata.select.embeddings import read_vectors
from mmdata.storage.tables import scan_tables, table_remedy
from mmdata.workspace.layout import Part, Workspace

FACTS = {
    "uid": pl.String,
    "url": pl.String,
    "caption": pl.String,
    "sha256": pl.String,
    "phash": pl.UInt64,
    "lang": pl.String,
    "group": pl.String,
}
"""The columns of a frame of pairs. `group` is null where no column of groups is asked for."""

_PLAIN_NAME = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Vectors:
    """Vectors of pairs.

    Args:
        image: float32 N,D, of unit length. text: float32 N,E, likewise.
        has_both: bool N; rows without both vectors are zero.
    """

    image: np.ndarray
    text: np.ndarray
    has_both: np.ndarray


class Captions(Protocol):
    """Gives vectors of captions that no table holds."""

    def embed(self, captions: Sequence[str]) -> np.ndarray:
        """float32 N,E, of unit length."""


@dataclass(frozen=True, slots=True)
class PairTables:
    """Fetched and scored pairs of a workspace.

    Args:
        frame: FACTS, and `table` (the number of a features table) and `row` in it; one row a uid, sorted by uid.
        tables: features tables.
        scorer: which made all of them; None: there is no table.
    """

    frame: pl.DataFrame
    tables: Sequence[UPath] = ()
    scorer: ScorerMark | None = None

    def vectors(self, wanted: pl.DataFrame, captions: Captions) -> Vectors:
        """The vectors of some rows of `frame`, in their order."""
        image = _Rows(len(wanted))
        text = _Rows(len(wanted))
        order = wanted.select("table", "row").with_row_index("at").sort("table", "row")
        for (number,), rows in order.group_by("table", maintain_order=True):
            path, at, row = self.tables[int(str(number))], rows["at"].to_numpy(), rows["row"].to_numpy()
            image.put(path, at, *read_vectors(path, row))
            text.put(path, at, *read_vectors(path, row, "text_embedding"))
        lacking = np.flatnonzero(image.has & ~text.has)
        if len(lacking):  # of a version that kept no vectors of captions
            vectors = captions.embed(wanted["caption"][lacking].to_list())
            text.put(UPath("captions"), lacking, vectors, np.arange(len(lacking)))
        return Vectors(image.unit(), text.unit(), image.has & text.has)


@dataclass(slots=True)
class _Rows:
    """Vectors that are filled in table by table."""

    count: int
    has: np.ndarray = field(init=False)
    values: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.has, self.values = np.zeros(self.count, bool), np.zeros((self.count, 0), np.float32)

    def put(self, path: UPath, rows: np.ndarray, vectors: np.ndarray, present: np.ndarray) -> None:
        """Args: rows: that were asked for; vectors: float M,D; present: places in `rows` of these vectors."""
        if not len(present):
            return
        if not self.values.shape[1]:
            self.values = np.zeros((self.count, vectors.shape[1]), np.float32)
        if vectors.shape[1] != self.values.shape[1]:
            raise DataError(
                f"{path}: vectors of {vectors.shape[1]} numbers, where others have {self.values.shape[1]}. "
                f"{table_remedy(path)}"
            )
        self.values[rows[present]], self.has[rows[present]] = vectors, True

    def unit(self) -> np.ndarray:
        return self.values / np.maximum(np.linalg.norm(self.values, axis=1, keepdims=True), 1e-9)


def read_pairs(workspace: Workspace, parts: Sequence[Part], group_column: str | None = None) -> PairTables:
    """The fetched pairs of pictures (or clips) and captions of some parts; a part without finished features is skipped.

    Args:
        group_column: a column of the source, kept in `extra`, whose equal values mark samples that belong together.

    Raises:
        DataError: the parts were scored by different models, or a table is damaged.
        UserError: `group_column` is not a plain name, or no row has it.
    """
    if group_column is not None and not _PLAIN_NAME.fullmatch(group_column):
        raise UserError(f"--group-column {group_column}: not a plain name of a column (letters, digits, _)")
    frames, tables, marks = [], list[UPath](), dict[str, tuple[ScorerMark, UPath]]()
    for part, name in _slices(workspace, parts):
        rows, media, features = (workspace.table(part, stage, name) for stage in ("rows", "media", "features"))
        frame = _read_slice(rows, media, features, group_column)
        mark = read_scorer_mark(features)
        marks.setdefault(mark.fingerprint, (mark, features))
        frames.append(frame.with_columns(table=pl.lit(len(tables), pl.UInt32)))
        tables.append(features)
    if len(marks) > 1:
        first, second = list(marks.values())[:2]
        raise DataError(
            f"{first[1]} was scored by {first[0].name}, and {second[1]} by {second[0].name}: vectors of different "
            f"models do not compare. {table_remedy(second[1])}"
        )
    if not frames:
        return PairTables(pl.DataFrame(schema={**FACTS, "table": pl.UInt32, "row": pl.UInt32}))
    frame = pl.concat(frames).unique("uid", keep="first", maintain_order=True).sort("uid")
    if group_column is not None and not frame["group"].is_not_null().any():
        raise UserError(
            f"--group-column {group_column}: no row of {workspace.root} has this column. Remedy: keep it with "
            "`keep_columns` of the source, or name another one."
        )
    return PairTables(frame, tables, next(iter(marks.values()))[0])


def _slices(workspace: Workspace, parts: Sequence[Part]) -> Iterator[tuple[str, str]]:
    for part in parts:
        stamps = [workspace.part_stamp(part.name, stage) for stage in ("rows", "media", "features")]
        if all(stamps) and stamps[0] is not None:
            yield from ((part.name, name) for name in stamps[0].slices)


def _read_slice(rows: UPath, media: UPath, features: UPath, group_column: str | None) -> pl.DataFrame:
    columns = ["uid", "kind", "url", "caption", "problem", *(["extra"] if group_column else [])]
    pieces = [
        scan_tables([rows], columns),
        scan_tables([media], ["status", "sha256"]),
        scan_tables([features], ["phash", "lang", "problem"]).rename({"problem": "unscored"}),
    ]
    try:
        frame = pl.concat(pieces, how="horizontal").collect()
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{rows}, {media} or {features}: cannot be read ({error}). {table_remedy(features)}") from error
    group = pl.col("extra").str.json_path_match(f"$.{group_column}") if group_column else pl.lit(None, pl.String)
    usable = (
        pl.col("kind").is_in(["image", "video"])
        & (pl.col("status") == "success")
        & pl.col("problem").is_null()
        & pl.col("unscored").is_null()
        & (pl.col("caption").str.strip_chars().str.len_bytes() > 0)
    )
    return (
        frame.with_row_index("row")
        .filter(usable)
        .with_columns(group=group)
        .select(*(pl.col(name).cast(dtype) for name, dtype in FACTS.items()), "row")
    )


def read_uids(path: Path) -> pl.DataFrame:
    """uid and repeats (Int32) of a table of samples: Parquet, CSV, or a text file with a uid a line.

    Raises:
        UserError: the file is missing, or has no column `uid` of 32 hex digits.
    """
    try:
        if path.suffix == ".parquet":
            frame = pl.read_parquet(path)
        elif path.suffix == ".csv":
            frame = pl.read_csv(path, infer_schema=False)
        else:
            frame = pl.DataFrame({"uid": path.read_text(encoding="utf-8").split()}, schema={"uid": pl.String})
    except (OSError, UnicodeDecodeError, pl.exceptions.PolarsError) as error:
        raise UserError(f"{path}: cannot be read as a table of uids ({error})") from None
    if "uid" not in frame.columns:
        raise UserError(f"{path}: has no column `uid`, but {', '.join(frame.columns)}. Remedy: name the column `uid`.")
    uids = frame["uid"].cast(pl.String)
    wrong = frame.filter(~uids.str.contains("^[0-9a-f]{32}$").fill_null(False))
    if len(wrong):
        raise UserError(f"{path}: {wrong['uid'][0]!r} is not a uid (expected 32 hex digits)")
    repeats = pl.col("repeats").cast(pl.Int32) if "repeats" in frame.columns else pl.lit(1, pl.Int32)
    return frame.select(uids, repeats.alias("repeats")).filter(pl.col("repeats") > 0).unique("uid", keep="first")
