"""Balance over concepts (MetaCLIP, Xu et al. 2023): match captions against a list, and thin frequent concepts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

_CJK = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}]"


def match_concepts(captions: pl.Series, concepts: Sequence[str]) -> pl.Series:
    """Which concepts each caption names, found by one Aho-Corasick automaton for the whole list.

    Case and punctuation do not count; a concept matches whole words, except one with Chinese, Japanese or Korean
    characters, which matches anywhere. Concepts that differ in case or punctuation only are the first of them.

    Returns:
        List(UInt32): places in `concepts`, ascending; empty without a match or without a caption.
    """
    spelled = pl.Series("concept", concepts, dtype=pl.String).to_frame().select(plain_words(pl.col("concept")))
    needles: dict[str, int] = {}
    for place, (words, cjk) in enumerate(
        spelled.select("concept", cjk=pl.col("concept").str.contains(_CJK)).iter_rows()
    ):
        needle = words.strip() if cjk else words
        if needle.strip():
            needles.setdefault(needle, place)
    if not needles:
        return pl.Series(captions.name, [[]] * len(captions), dtype=pl.List(pl.UInt32))
    matches = plain_words(pl.col("caption")).str.extract_many(list(needles), overlapping=True)
    # `replace_strict` on strings of a list, flattened: one look-up a match.
    places = pl.element().replace_strict(list(needles), list(needles.values()), return_dtype=pl.UInt32)
    nothing = pl.lit([], pl.List(pl.UInt32))
    return (
        captions.rename("caption")
        .to_frame()
        .select(matches.list.eval(places).list.unique().list.sort().fill_null(nothing))["caption"]
        .rename(captions.name)
    )


def plain_words(text: pl.Expr) -> pl.Expr:
    """Lower case; runs of other characters than letters, marks and digits become one space; a space at both ends."""
    return pl.format(" {} ", text.str.to_lowercase().str.replace_all(r"[^\p{L}\p{M}\p{N}]+", " ").str.strip_chars(" "))


def flatten(matches: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    """Lists of concepts as pairs: the row (int64) and the concept (int64) of each match, in row order."""
    lengths = matches.list.len().fill_null(0).to_numpy()
    concepts = matches.filter(pl.Series(lengths > 0)).explode().to_numpy().astype(np.int64)
    return np.repeat(np.arange(len(matches)), lengths), concepts


def concept_rates(counts: np.ndarray, cap: int) -> np.ndarray:
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
