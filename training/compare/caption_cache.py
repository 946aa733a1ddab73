"""Vectors of captions that no features table holds: embedded by the scorer, and cached by caption."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from upath import UPath

from mmdata.config import Score
from mmdata.errors import DataError
from mmdata.score.features_reader import ScorerMark
from mmdata.score.scorer import load_scorer
from mmdata.storage.tables import read_table, write_table

_SCHEMA = pa.schema([("caption", pa.string()), ("text_embedding", pa.list_(pa.float16()))])


class CaptionCache:
    """Embeds captions by the scorer that made the features tables.

    Args:
        score: its settings.
        mark: what the tables name.
        folder: of the cache.
    """

    def __init__(self, score: Score, mark: ScorerMark, folder: UPath) -> None:
        self._score, self._mark = score, mark
        self._path = folder / f"captions-{mark.fingerprint}.parquet"

    def embed(self, captions: Sequence[str]) -> np.ndarray:
        """float32 N,E, of unit length, as float16 holds it.

        Raises:
            DataError: `score` is not the scorer of the tables.
        """
        known: dict[str, np.ndarray] = {}
        if self._path.exists():
            table = read_table(self._path)
            known = dict(
                zip(table["caption"].to_pylist(), map(np.array, table["text_embedding"].to_pylist()), strict=True)
            )
        plain = [caption.strip() for caption in captions]
        if missing := sorted(set(plain) - known.keys()):
            scorer = load_scorer(self._score)
            if scorer.fingerprint != self._mark.fingerprint:
                raise DataError(
                    f"the features were made by {self._mark.name} ({self._mark.fingerprint}), and section `score` "
                    f"names {scorer.name} ({scorer.fingerprint}). Remedy: `mmdata build` scores with the present one."
                )
            known |= dict(zip(missing, scorer.embed_texts(missing).astype(np.float16), strict=True))
            rows = [{"caption": caption, "text_embedding": known[caption]} for caption in sorted(known)]
            write_table(self._path, pa.Table.from_pylist(rows, schema=_SCHEMA))
        return np.stack([known[caption] for caption in plain]).astype(np.float32)
