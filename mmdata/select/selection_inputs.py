"""What a selection reads: the corpus, the slices of its parts, and the scores that it uses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from upath import UPath

from mmdata.config import Corpus
from mmdata.config.concept_list import Concepts
from mmdata.select.candidates import Slice
from mmdata.select.scores.score_columns import VectorScores
from mmdata.stage import Progress
from mmdata.workspace.layout import PartStage, Workspace


@dataclass(frozen=True, slots=True)
class SelectionInputs:
    """What a selection reads.

    Args:
        slices: of all parts, in the order in which candidates count them.
        scorer: fingerprint of the model that scored all parts; empty where nothing is scored.
        concepts: the configured concept lists.
        scores: the used scores that are computed from vectors.
    """

    corpus: Corpus
    workspace: Workspace
    slices: Sequence[Slice]
    scorer: str
    concepts: Concepts | None
    scores: VectorScores
    progress: Progress

    def tables(self, stage: PartStage) -> list[UPath]:
        """The tables of a stage, one a slice."""
        return [self.workspace.table(part_slice.part, stage, part_slice.name) for part_slice in self.slices]

    def embedding_counter(self, total: int) -> Callable[[int], None]:
        """A callback that adds up how many embeddings have been read, and reports the sum."""
        rows_read = 0

        def advance(rows: int) -> None:
            nonlocal rows_read
            rows_read += rows
            self.progress("embeddings", rows_read, total)

        return advance
