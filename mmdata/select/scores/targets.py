"""Target sets: the vectors of pictures, of a table, or of an earlier release's validation split, made once."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa
from upath import UPath

from mmdata.config import Score
from mmdata.config.select_scores import Target
from mmdata.config.selection_files import file_state, target_files
from mmdata.errors import UserError
from mmdata.fingerprint import fingerprint
from mmdata.score.features_reader import scorer_mark
from mmdata.select.reference_pictures import READING_VERSION, read_pictures
from mmdata.storage.atomic import publish_bytes
from mmdata.storage.tables import read_table
from mmdata.workspace.layout import Workspace


@dataclass(frozen=True, slots=True)
class TargetVectors:
    """The vectors of a target set.

    Args:
        pictures: float16 (n, d), unit vectors, n >= 1.
        texts: of their captions, (n, d); None where they were not asked for.
    """

    pictures: np.ndarray
    texts: np.ndarray | None = None

    @property
    def digest(self) -> str:
        """Names the vectors."""
        texts = b"" if self.texts is None else self.texts.tobytes()
        return hashlib.sha256(self.pictures.tobytes() + texts).hexdigest()[:16]


def target_path(workspace: Workspace, target: Target, scorer: str, with_texts: bool) -> UPath:
    """Where the vectors of a target set are kept: under another name if one of its files has changed."""
    state = [] if target.release is not None else file_state(target_files(target))
    key = target.model_dump(exclude={"pictures", "table"})
    reading = True if target.pictures is None else READING_VERSION  # True: the names of older files stay
    return workspace.scores_dir / f"target-{fingerprint(scorer, key, reading, state, with_texts)}.npz"


def load_target(
    workspace: Workspace, target: Target, score: Score, scorer: str, width: int, with_texts: bool = False
) -> TargetVectors:
    """The vectors of a target set; they are made on the first call and kept in the workspace.

    Args:
        score: the corpus's scorer, which embeds pictures.
        scorer: its fingerprint, as the features tables name it.
        width: length of its vectors.
        with_texts: read the vectors of captions, too.

    Raises:
        UserError: the target set cannot be read, is empty, or its vectors are of another scorer.
    """
    path = target_path(workspace, target, scorer, with_texts)
    vectors = _read(path)
    if vectors is None:
        if target.pictures is not None:
            vectors = _of_pictures(target, score, scorer, with_texts)
        elif target.table is not None:
            vectors = _of_tables(target_files(target), target, scorer, with_texts)
        else:
            vectors = _of_release(workspace, target, scorer, with_texts)
        _write(path, vectors)
    if vectors.pictures.shape[1] != width:
        raise _problem(target, f"has vectors of {vectors.pictures.shape[1]} numbers, and the corpus of {width}")
    return vectors


def _of_pictures(target: Target, score: Score, scorer: str, with_texts: bool) -> TargetVectors:
    from mmdata.score.scorer import load_scorer

    if with_texts:
        raise _problem(target, "is pictures without captions, and this score compares with captions, too")
    model = load_scorer(score)
    if model.fingerprint != scorer:
        raise _problem(
            target, f"would be embedded by {model.name} ({model.fingerprint}), and the parts were by {scorer}"
        )
    files = target_files(target)
    read = read_pictures(files, model, "target set")
    if not len(read.vectors):
        raise _problem(target, f"has {len(files)} pictures, and none of them can be read")
    return _usable(target, read.vectors, None)


def _of_tables(tables: Sequence[UPath], target: Target, scorer: str, with_texts: bool) -> TargetVectors:
    columns = [target.column, *([target.text_column] if with_texts else [])]
    found: list[list[np.ndarray]] = []
    for path in tables:
        table = read_table(path)
        if missing := [name for name in columns if name not in table.column_names]:
            known = ", ".join(table.column_names[:20])
            raise _problem(target, f"has no column {missing[0]!r} in {path.name}; it has {known}")
        mark = scorer_mark(table.schema.metadata)
        if mark is not None and mark.fingerprint != scorer:
            raise _problem(target, f"was made by {mark.name} ({mark.fingerprint}), and the parts were by {scorer}")
        whole = table.select(columns).drop_null()
        if len(whole):
            found.append([_matrix(target, whole[name]) for name in columns])
    return _joined(target, found, with_texts)


def _of_release(workspace: Workspace, target: Target, scorer: str, with_texts: bool) -> TargetVectors:
    selection = workspace.release_dir(str(target.release)) / "selection.parquet"
    if not selection.exists():
        known = ", ".join(workspace.releases()) or "none"
        raise _problem(target, f"is not a release of this workspace (there are: {known})")
    held = pl.DataFrame(read_table(selection, ["uid", "part", "slice", "split"])).filter(
        pl.col("split") == "validation"
    )
    names = ["embedding", *(["text_embedding"] if with_texts else [])]
    found = []
    for (part, slice_name), rows in held.group_by("part", "slice", maintain_order=True):
        path = workspace.table(str(part), "features", str(slice_name))
        table = read_table(path)
        mark = scorer_mark(table.schema.metadata)
        if mark is None or mark.fingerprint != scorer:
            raise _problem(target, f"has samples in part {part}, which another model has scored since")
        if missing := [name for name in names if name not in table.column_names]:
            raise _problem(target, f"has samples in part {part}, whose features have no {missing[0]}")
        wanted = pl.Series(table["uid"]).is_in(rows["uid"].to_list()).to_arrow()
        whole = table.filter(wanted).select(names).drop_null()
        if len(whole):
            found.append([_matrix(target, whole[name]) for name in names])
    return _joined(target, found, with_texts)


def _matrix(target: Target, column: pa.ChunkedArray) -> np.ndarray:
    """A column of lists of numbers as float16 (n, d)."""
    vectors = column.combine_chunks()
    try:
        flat = vectors.flatten().to_numpy(zero_copy_only=False).astype(np.float16)
        return flat.reshape(len(vectors), -1)
    except (ValueError, TypeError, AttributeError, pa.ArrowException) as error:
        raise _problem(target, f"has a column that is no list of as many numbers in each row ({error})") from None


def _joined(target: Target, found: list[list[np.ndarray]], with_texts: bool) -> TargetVectors:
    if not found:
        raise _problem(target, "holds no vectors")
    widths = {matrix.shape[1] for matrices in found for matrix in matrices}
    if len(widths) > 1:
        raise _problem(target, f"holds vectors of different lengths: {sorted(widths)}")
    pictures = np.concatenate([matrices[0] for matrices in found])
    return _usable(target, pictures, np.concatenate([matrices[1] for matrices in found]) if with_texts else None)


def _usable(target: Target, pictures: np.ndarray, texts: np.ndarray | None) -> TargetVectors:
    """Unit vectors only: rows that are zero or not finite are left out, the others scaled to length 1."""
    usable = np.ones(len(pictures), bool)
    unit = []
    for matrix in (pictures,) if texts is None else (pictures, texts):
        length = np.linalg.norm(matrix.astype(np.float64), axis=1)
        usable &= np.isfinite(length) & (length > 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            unit.append((matrix.astype(np.float64) / length[:, None]).astype(np.float16))
    if not usable.any():
        raise _problem(target, "holds no vector that is not zero")
    return TargetVectors(*(matrix[usable] for matrix in unit))


def _problem(target: Target, what: str) -> UserError:
    given = target.pictures or target.table or target.release
    return UserError(
        f"the target set {given} {what}. Remedy: give pictures, a table of vectors by the scorer of the corpus, or the "
        "id of a release (`mmdata releases` lists them)."
    )


def _write(path: UPath, vectors: TargetVectors) -> None:
    buffer = io.BytesIO()
    arrays = {"pictures": vectors.pictures} | ({} if vectors.texts is None else {"texts": vectors.texts})
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # its other keywords are not among the names
    publish_bytes(path, buffer.getvalue())


def _read(path: UPath) -> TargetVectors | None:
    """The stored vectors; None if there are none, or if they are damaged: they can be made again."""
    try:
        with np.load(io.BytesIO(path.read_bytes())) as held:
            return TargetVectors(held["pictures"], held["texts"] if "texts" in held.files else None)
    except (FileNotFoundError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
