"""Vectors of captions: which captions a scorer embeds, and the column `text_embedding` made of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa


@dataclass(frozen=True, slots=True)
class CaptionVectors:
    """The vectors of distinct captions.

    Args:
        captions: strings, as `distinct_captions` gives them.
        vectors: float32 T,D, of unit length; NaN where the model gives NaN.
    """

    captions: pl.Series
    vectors: np.ndarray

    def numbers(self, captions: pl.Series) -> np.ndarray:
        """The number of each caption among the distinct ones, int64; -1 where it is not one of them."""
        distinct = self.captions.alias("caption").to_frame().with_row_index("text")
        joined = plain_captions(captions).to_frame("caption").join(distinct, "caption", "left", maintain_order="left")
        return joined["text"].cast(pl.Int64).fill_null(-1).to_numpy()

    def column(self, captions: pl.Series, wanted: np.ndarray) -> pa.Array:
        """The vectors of captions as list<float16>; null where it is not wanted, unknown or not finite.

        Args:
            captions: N strings.
            wanted: bool N.
        """
        numbers = np.where(wanted, self.numbers(captions), -1)
        has_vector = numbers >= 0
        has_vector[has_vector] = np.isfinite(self.vectors[numbers[has_vector]]).all(axis=1)
        return vector_lists(self.vectors[numbers[has_vector]], has_vector)


def plain_captions(captions: pl.Series) -> pl.Series:
    """Captions as the scorer reads them, without spaces at their ends; empty where there is none."""
    return captions.cast(pl.String).fill_null("").str.strip_chars()


def distinct_captions(captions: pl.Series) -> pl.Series:
    """The distinct captions that are not empty, in the order in which they first stand."""
    plain = plain_captions(captions).unique(maintain_order=True)
    return plain.filter(plain != "")


def vector_lists(vectors: np.ndarray, has_vector: np.ndarray) -> pa.Array:
    """Vectors as list<float16>, one for each row.

    Args:
        vectors: float M,D, of the rows that have one, in their order.
        has_vector: bool N, M of them true; the other rows are null.
    """
    values = vectors.astype(np.float16).ravel()
    ends = np.concatenate([[0], np.cumsum(np.where(has_vector, vectors.shape[1], 0))]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(ends), pa.array(values, pa.float16()), mask=pa.array(~has_vector))
