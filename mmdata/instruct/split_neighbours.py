"""Reads the embeddings of a split's pictures and captions, and finds the neighbours of its samples."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack

import numpy as np
import polars as pl

from mmdata.config import Corpus
from mmdata.instruct.caption_prints import caption_prints
from mmdata.instruct.kept import Kept, has_image
from mmdata.instruct.neighbours import Captions, Neighbours, find_neighbours, limits_of, no_neighbours
from mmdata.observe import logs
from mmdata.samples import hash64
from mmdata.select.embeddings import gather_embeddings

NEIGHBOUR_TASKS = {"match", "reference_image"}
SAME_PICTURE = 1e-3  # cosine distance below which two pictures are the same, if deduplication sets none

TEXTLESS_REMEDY = "name the tasks under instruct.tasks, `match` among them, then `mmdata build` fills the embeddings in"

_log = logs.logger(__name__)


def neighbours_of(corpus: Corpus, frame: pl.DataFrame, kept: Kept, tasks: Sequence[str]) -> Neighbours:
    """Neighbours within one split. Samples without picture, caption or embedding have none; see `find_neighbours`."""
    neighbours = no_neighbours(len(frame))
    if not NEIGHBOUR_TASKS & set(tasks):
        return neighbours
    rows = np.flatnonzero(has_image(frame))
    with ExitStack() as stack:
        vectors, usable = stack.enter_context(_vectors(kept, frame, rows, "embedding"))
        rows = rows[usable]
        texts, captioned = stack.enter_context(_vectors(kept, frame, rows, "text_embedding"))
        if "match" in tasks and len(rows) and not len(texts):
            _log.warning("match gives no record: no caption has a text embedding", remedy=TEXTLESS_REMEDY)
        captions = _captions(frame[rows], texts, captioned)
        order = np.argsort(hash64(frame["uid"].gather(rows), corpus.seed, "instruct:pairs"), kind="stable")
        eps = max(corpus.select.dedup.semantic_eps or 0.0, SAME_PICTURE)
        local = find_neighbours(vectors, captions, limits_of(vectors, captions, order), duplicate_cosine=1 - eps)
    for ours, theirs in ((neighbours.negative, local.negative), (neighbours.reference, local.reference)):
        has = theirs >= 0
        ours[rows[has]] = rows[theirs[has]]
    return neighbours


def _vectors(
    kept: Kept, frame: pl.DataFrame, rows: np.ndarray, column: str
) -> AbstractContextManager[tuple[np.ndarray, np.ndarray]]:
    """The embeddings of rows of a frame, and which of them have one."""
    place, row = frame["place"].to_numpy()[rows], frame["row"].to_numpy()[rows]
    return gather_embeddings(kept.features, place, row, column=column)


def _captions(frame: pl.DataFrame, vectors: np.ndarray, captioned: np.ndarray) -> Captions:
    """What neighbours need to know of the captions.

    Args:
        vectors: text embeddings of the rows `captioned`.
    """
    vector_row = np.full(len(frame), -1, np.int64)
    vector_row[captioned] = np.arange(len(captioned))
    languages = frame["caption_lang"].fill_null("")
    numbers = {language: number for number, language in enumerate(languages.unique().sort())}
    language = languages.replace_strict(numbers, return_dtype=pl.Int64).to_numpy()
    return Captions(caption_prints(frame["caption"], len(frame)), vectors, vector_row, language)
