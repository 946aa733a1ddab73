"""Balance over concepts (MetaCLIP, Xu et al. 2023; MetaCLIP 2, Chuang et al. 2025): thin frequent concepts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl


def flatten(matches: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    """Lists of concepts as pairs: the row (int64) and the concept (int64) of each match, in row order."""
    lengths = matches.list.len().fill_null(0).to_numpy()
    concepts = matches.filter(pl.Series(lengths > 0)).explode().to_numpy().astype(np.int64)
    return np.repeat(np.arange(len(matches)), lengths), concepts


def concept_caps(counts: np.ndarray, cap: int, languages: Mapping[str, range]) -> np.ndarray:
    """MetaCLIP's t of each concept, float64: `cap` for one list; for a list for each language, MetaCLIP 2's.

    There `cap` is for English (without an English list: for the first), and the cap of each other language is the count
    up to which its concepts, from the rarest on, have the same share of all matches as English's below its cap.
    """
    caps = np.full(len(counts), float(cap))
    if not languages:
        return caps
    reference = "en" if "en" in languages else min(languages)
    counted = counts[languages[reference]]
    tail_share = counted[counted < cap].sum() / max(counted.sum(), 1)
    for language, places in languages.items():
        ascending = np.sort(counts[places])
        if language != reference and ascending.sum() > 0:
            share = np.cumsum(ascending) / ascending.sum()
            caps[places] = max(ascending[np.abs(share - tail_share).argmin()], 1)
    return caps


def concept_rates(counts: np.ndarray, cap: int | np.ndarray) -> np.ndarray:
    """MetaCLIP's p_e = min(1, t / count_e); 1 for a concept without matches."""
    return np.minimum(1.0, cap / np.maximum(counts, 1))


def keep_probability(rows: int, row: np.ndarray, concept: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """1 - prod over the row's concepts of (1 - p_e): 0, as in MetaCLIP, for a caption that names no concept.

    Args:
        rows: number of rows n.
        row, concept: the matches, as `flatten` gives them.
        rates: p_e by concept.

    Returns:
        float64, (n,).
    """
    with np.errstate(divide="ignore"):
        missed = np.log1p(-rates[concept])
    return -np.expm1(np.bincount(row, weights=missed, minlength=rows)) + 0.0


def rarest(rows: int, row: np.ndarray, concept: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The concept of each row with the lowest count; on a tie the first of the list; -1 without a match."""
    order = np.lexsort((concept, counts[concept], row))
    rows_matched, first = np.unique(row[order], return_index=True)
    result = np.full(rows, -1, np.int64)
    result[rows_matched] = concept[order[first]]
    return result
