"""Computes the used scores from kept vectors, a slice at a time, and keeps them in the workspace.

scores/<fingerprint of the score>/<digest of the features slice>.npy   float32, one a row of the slice; NaN: none.
        <digest>-<number of text vectors>.npy where it reads captions: their vectors are not part of the digest
scores/bank-<…>.npz, target-<…>.npz                                    what scores compare with
scores/used.json                                                       the scores and targets of the latest selection
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import polars as pl
from upath import UPath

from mmdata.config import Corpus, Select
from mmdata.config.select_scores import ScoreKind, Target
from mmdata.errors import DataError
from mmdata.optout.state import OPT_OUT, opt_out_digest
from mmdata.select.embeddings import read_vectors
from mmdata.select.scores.aesthetic import load_head
from mmdata.select.scores.bank import Bank, bank_path, keep_bank, leave_out
from mmdata.select.scores.clip_loss import SurrogateClipLoss
from mmdata.select.scores.named_scores import score_column
from mmdata.select.scores.norm_sim import NormSim
from mmdata.select.scores.targets import TargetVectors, load_target, target_path
from mmdata.select.scores.variance_alignment import VarianceAlignment
from mmdata.select.scores.vector_score import VectorScore
from mmdata.storage.atomic import publish_bytes, publish_json
from mmdata.storage.tables import read_table, scan_tables
from mmdata.workspace.layout import PartStage, Workspace, redo_remedy

if TYPE_CHECKING:
    from mmdata.select.candidates import Slice


@dataclass(frozen=True, slots=True)
class VectorScores:
    """The used scores that are computed from vectors, ready to score slices.

    Args:
        scores: name -> score.
    """

    workspace: Workspace
    scores: Mapping[str, VectorScore]

    def of_slice(self, part: str, slice_name: str) -> list[pl.Series]:
        """The scores of a slice as columns `score_<name>`, Float32, NaN where a row lacks a vector.

        They are read from the workspace where they were computed before.

        Raises:
            DataError: the stamp or the table of the slice is missing or damaged.
        """
        if not self.scores:
            return []
        stamp = self.workspace.slice_stamp(part, "features", slice_name)
        if stamp is None:
            remedy = redo_remedy(part, "features", slice_name)
            raise DataError(f"part {part}, slice {slice_name}: its stamp is missing. {remedy}")
        with_texts = f"{stamp.digest}-{stamp.counts.get('text_embedded', 0)}"
        paths = {
            name: self.workspace.scores_dir
            / score.fingerprint
            / f"{with_texts if score.reads_texts else stamp.digest}.npy"
            for name, score in self.scores.items()
        }
        values = {name: _read_values(path, stamp.rows) for name, path in paths.items()}
        missing = {name: self.scores[name] for name, held in values.items() if held is None}
        if missing:
            computed = score_table(self.workspace.table(part, "features", slice_name), stamp.rows, missing)
            for name, column in computed.items():
                _write_values(paths[name], column)
            values |= computed
        return [pl.Series(score_column(name), values[name], pl.Float32) for name in self.scores]

    @property
    def fingerprints(self) -> dict[str, str]:
        """Name -> fingerprint of each score."""
        return {name: score.fingerprint for name, score in self.scores.items()}


def score_table(table: UPath, rows: int, scores: Mapping[str, VectorScore]) -> dict[str, np.ndarray]:
    """Score the rows of a features table: float32 (rows,) a score, NaN where a row lacks a vector that it needs."""
    pictures, have_picture = read_vectors(table, np.arange(rows), "embedding")
    texts, both, at_picture, at_text = None, have_picture, np.arange(len(have_picture)), None
    if any(score.reads_texts for score in scores.values()):
        texts, have_text = read_vectors(table, np.arange(rows), "text_embedding")
        both, at_picture, at_text = np.intersect1d(have_picture, have_text, return_indices=True)
    columns = {}
    for name, score in scores.items():
        values = np.full(rows, np.nan, np.float32)
        if not score.reads_texts:
            values[have_picture] = score.score(pictures, None)
        elif texts is not None:
            values[both] = score.score(pictures[at_picture], texts[at_text])
        columns[name] = values
    return columns


def make_scores(corpus: Corpus, workspace: Workspace, slices: Sequence[Slice], scorer: str) -> VectorScores:
    """The used scores of a corpus that are computed from vectors; draws the bank and makes the target sets first.

    Args:
        slices: of all parts.
        scorer: fingerprint of the model that made their vectors.

    Raises:
        UserError: a target set or the weights of a head cannot be used.
    """
    select = corpus.select
    kinds = {name: select.scores[name] for name in select.used_scores if name in select.scores}
    from_vectors = {name: kind for name, kind in kinds.items() if kind.kind != "column"}
    maker = _Maker(corpus, workspace, slices, scorer)
    if opt_out_digest(workspace):
        leave_out(workspace.scores_dir, maker.left_out())
    scores = VectorScores(workspace, {name: maker.make(kind) for name, kind in from_vectors.items()})
    if scores.scores or select.targets:
        used = {*scores.fingerprints.values(), *(path.name for path in _target_paths(select, workspace, scorer))}
        publish_json(workspace.scores_dir / "used.json", {"used": sorted(used)})
    return scores


def _target_paths(select: Select, workspace: Workspace, scorer: str) -> list[UPath]:
    """Where the target sets in use are kept, with texts or without."""
    return [target_path(workspace, target, scorer, texts) for target in select.targets for texts in (False, True)]


@dataclass(frozen=True, slots=True)
class _Maker:
    """Makes the scores of one corpus."""

    corpus: Corpus
    workspace: Workspace
    slices: Sequence[Slice]
    scorer: str

    def make(self, kind: ScoreKind) -> VectorScore:
        if kind.kind == "s-clip-loss":
            return SurrogateClipLoss(self._bank(kind.bank_pairs), kind.temperature)
        if kind.kind == "norm-sim":
            return NormSim(self._target(kind.target), kind.p)
        if kind.kind == "aesthetic":
            return load_head(UPath(kind.weights), vector_width(self._tables("features")), kind.activation)
        assert kind.kind == "vas"
        with_texts = kind.towers == "both"
        if kind.target is None:
            bank = self._bank(kind.bank_pairs)
            return VarianceAlignment(bank.pictures, bank.texts if with_texts else None, bank.digest)
        target = self._target(kind.target, with_texts)
        return VarianceAlignment(target.pictures, target.texts, target.digest)

    def _bank(self, pairs: int) -> Bank:
        path = bank_path(self.workspace.scores_dir, self.scorer, pairs)
        return keep_bank(path, self._tables("features"), pairs, self.corpus.seed)

    def _target(self, target: Target, with_texts: bool = False) -> TargetVectors:
        width = vector_width(self._tables("features"))
        return load_target(self.workspace, target, self.corpus.score, self.scorer, width, with_texts)

    def _tables(self, stage: PartStage) -> list[UPath]:
        return [self.workspace.table(of.part, stage, of.name) for of in self.slices]

    def left_out(self) -> frozenset[str]:
        """The samples that were opted out or forgotten, which no bank may hold."""
        uids: set[str] = set()
        for stage, column in (("rows", "problem"), ("media", "error")):
            table = scan_tables(self._tables(cast(PartStage, stage)), ["uid", column])
            uids |= set(table.filter(pl.col(column) == OPT_OUT).collect()["uid"])
        return frozenset(uids)


def vector_width(tables: Sequence[UPath]) -> int:
    """Length of the vectors of features tables; 0 if there are none."""
    for table in tables:
        column = read_table(table, ["embedding"])["embedding"].drop_null()
        if len(column):
            return len(column[0])
    return 0


def _read_values(path: UPath, rows: int) -> np.ndarray | None:
    """Stored scores; None if there are none, or the file is damaged: they are computed again."""
    try:
        values = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
    except (FileNotFoundError, ValueError, EOFError):
        return None
    return np.asarray(values) if values.shape == (rows,) and values.dtype == np.float32 else None


def _write_values(path: UPath, values: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, values)
    publish_bytes(path, buffer.getvalue())
