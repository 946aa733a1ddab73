"""What a selection reads."""

from __future__ import annotations

from pathlib import Path

from mmdata.select.candidates import Slice
from mmdata.select.scores.score_columns import VectorScores
from mmdata.select.selection_inputs import SelectionInputs
from mmdata.workspace.layout import Workspace
from tests.support.selecting import corpus_for


def test_tables_come_in_the_order_of_the_slices_and_embeddings_are_counted(tmp_path: Path) -> None:
    corpus, workspace = corpus_for(tmp_path), Workspace(str(tmp_path))
    reported: list[tuple[str, int, int]] = []
    slices = [Slice("web-000001", "0000", 5), Slice("web-000000", "0003", 7)]
    inputs = SelectionInputs(
        corpus, workspace, slices, "scorer", None, VectorScores(workspace, {}), lambda *given: reported.append(given)
    )
    assert [path.as_posix()[len(str(tmp_path)) :] for path in inputs.tables("media")] == [
        "/parts/web-000001/media/0000.parquet",
        "/parts/web-000000/media/0003.parquet",
    ]
    advance = inputs.embedding_counter(12)
    advance(5)
    advance(7)
    assert reported == [("embeddings", 5, 12), ("embeddings", 12, 12)]
