"""Evaluation sets as prints: what is compared with the samples of a corpus so that none of them enters a release."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from upath import UPath

from mmdata.config import Score
from mmdata.config.evaluation_set import EvaluationSet, PrintColumn
from mmdata.config.selection_files import file_state, target_files
from mmdata.errors import UserError
from mmdata.fingerprint import fingerprint
from mmdata.score.features_reader import scorer_mark
from mmdata.select.reference_pictures import READING_VERSION, read_pictures
from mmdata.storage.atomic import publish_bytes
from mmdata.storage.tables import read_table
from mmdata.urls import canonical_url
from mmdata.workspace.layout import Workspace

COLUMNS: tuple[PrintColumn, ...] = ("url", "sha256", "phash", "embedding", "text")


@dataclass(frozen=True, slots=True)
class Prints:
    """What is known of the items of an evaluation set; each array is of those items that have it.

    Args:
        urls: canonical.
        sha256: the first 16 hex digits of the files' SHA-256, uint64.
        phash: perceptual hashes, uint64; without 0, which every flat picture has.
        vectors: unit embeddings by the corpus's scorer, float16 (n, d); (0, 0) where there are none.
        texts: in lower case.
    """

    urls: Sequence[str]
    sha256: np.ndarray
    phash: np.ndarray
    vectors: np.ndarray
    texts: Sequence[str]


def load_prints(workspace: Workspace, wanted: EvaluationSet, score: Score, scorer: str) -> Prints:
    """The prints of an evaluation set. Those of pictures are made on the first call, and kept in the workspace.

    Args:
        score: the corpus's scorer, which embeds pictures.
        scorer: its fingerprint, as the features tables name it; empty where nothing is scored.

    Raises:
        UserError: the set is missing, is empty, cannot be read, or its vectors are of another scorer.
    """
    files = target_files(wanted)
    if wanted.table is not None:
        return _of_tables(wanted, files, scorer)
    path = workspace.scores_dir / f"evaluation-{wanted.name}.npz"
    key = fingerprint(scorer, READING_VERSION, file_state(files))
    prints = _read(path, key)
    if prints is None:
        prints = _of_pictures(wanted, files, score, scorer)
        _write(path, key, prints)
    return prints


def _of_pictures(wanted: EvaluationSet, files: Sequence[UPath], score: Score, scorer: str) -> Prints:
    from mmdata.score.scorer import load_scorer

    model = load_scorer(score)
    if scorer and model.fingerprint != scorer:
        raise set_problem(
            wanted, f"would be embedded by {model.name} ({model.fingerprint}), and the parts were by {scorer}"
        )
    read = read_pictures(files, model, "evaluation set")
    if not len(read.vectors):
        raise set_problem(wanted, f"has {len(files)} pictures, and none of them can be read")
    return Prints([], read.sha256, _informative(read.phash), read.vectors, [])


def _of_tables(wanted: EvaluationSet, files: Sequence[UPath], scorer: str) -> Prints:
    columns: dict[PrintColumn, list[pl.Series]] = {name: [] for name in COLUMNS}
    for path in files:
        table = read_table(path)
        if missing := [name for name in wanted.columns.values() if name not in table.column_names]:
            known = ", ".join(table.column_names[:20])
            raise set_problem(wanted, f"has no column {missing[0]!r} in {path.name}; it has {known}")
        mark = scorer_mark(table.schema.metadata)
        if mark is not None and scorer and mark.fingerprint != scorer:
            raise set_problem(wanted, f"was made by {mark.name} ({mark.fingerprint}), and the parts were by {scorer}")
        for name in COLUMNS:
            column = wanted.columns.get(name, name)
            if column in table.column_names:
                columns[name].append(pl.Series(name, table[column]).drop_nulls())
    if not any(columns.values()):
        raise set_problem(wanted, f"has none of the columns {', '.join(COLUMNS)}")
    if not any(len(series) for held in columns.values() for series in held):
        raise set_problem(wanted, "has no rows with a value")
    return Prints(
        urls=[canonical_url(url) for series in columns["url"] for url in series.cast(pl.String)],
        sha256=_digits(wanted, "sha256", [series.cast(pl.String).str.slice(0, 16) for series in columns["sha256"]]),
        phash=_informative(_digits(wanted, "phash", columns["phash"])),
        vectors=_unit_vectors(wanted, columns["embedding"]),
        texts=[text.strip().lower() for series in columns["text"] for text in series.cast(pl.String)],
    )


def _digits(wanted: EvaluationSet, name: str, columns: Sequence[pl.Series]) -> np.ndarray:
    """Columns of 64-bit numbers, or of hex digits, as uint64."""
    numbers = [np.empty(0, np.uint64)]
    for column in columns:
        try:
            if column.dtype == pl.String:
                numbers.append(column.str.to_integer(base=16, dtype=pl.UInt64).to_numpy())
            elif column.dtype == pl.Int64:  # other tools keep the 64 bits as a signed number
                numbers.append(column.to_numpy().view(np.uint64))
            else:
                numbers.append(column.cast(pl.UInt64).to_numpy())
        except pl.exceptions.PolarsError as error:
            raise set_problem(
                wanted, f"has a {name} that is not 64 bits ({str(error).partition(chr(10))[0]})"
            ) from None
    return np.concatenate(numbers)


def _unit_vectors(wanted: EvaluationSet, columns: Sequence[pl.Series]) -> np.ndarray:
    matrices = []
    for column in columns:
        lengths = column.list.len().unique() if column.dtype == pl.List else column.arr.len().unique()
        if len(lengths) > 1:
            raise set_problem(wanted, f"has embeddings of different lengths: {lengths.sort().to_list()}")
        matrix = np.array(column.to_list(), np.float64).reshape(len(column), -1)
        length = np.linalg.norm(matrix, axis=1)
        usable = np.isfinite(length) & (length > 0)
        matrices.append((matrix[usable] / length[usable, None]).astype(np.float16))
    if len({matrix.shape[1] for matrix in matrices if len(matrix)}) > 1:
        raise set_problem(wanted, "has embeddings of different lengths in its files")
    return np.concatenate(matrices) if matrices else np.empty((0, 0), np.float16)


def _informative(hashes: np.ndarray) -> np.ndarray:
    return np.unique(hashes[hashes != 0])


def set_problem(wanted: EvaluationSet, what: str) -> UserError:
    """The error that says what is wrong with a set."""
    given = wanted.pictures or wanted.table
    return UserError(
        f"select.decontaminate, set {wanted.name} ({given}) {what}. Remedy: correct the set, or take it out of section "
        "select; no release is made without it."
    )


def _write(path: UPath, key: str, prints: Prints) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, key=np.array(key), sha256=prints.sha256, phash=prints.phash, vectors=prints.vectors)
    publish_bytes(path, buffer.getvalue())


def _read(path: UPath, key: str) -> Prints | None:
    """The stored prints; None if there are none, if they are of other files, or if they are damaged."""
    try:
        with np.load(io.BytesIO(path.read_bytes())) as held:
            if str(held["key"]) != key:
                return None
            return Prints([], held["sha256"], held["phash"], held["vectors"], [])
    except (FileNotFoundError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
