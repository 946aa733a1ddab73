"""Which concepts a caption names, as MetaCLIP finds them (Xu et al. 2023; MetaCLIP 2, Chuang et al. 2025).

The rules are those of the published curation code (facebookresearch/MetaCLIP, `metaclip/curation`). Case counts. The
marks , . ; : ? ! ` of a caption are set apart by spaces; tabs and line ends are spaces. A concept matches where it
stands between spaces; a side that is a punctuation mark, or a letter of a script without spaces (Chinese characters,
Thai, Lao, Burmese, Khmer, Tibetan), needs none. Hence `c++` is not `c`. A concept that holds one of the seven marks
within a word, such as `u.s.`, matches nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from mmdata.config.concept_list import OTHER_LANGUAGES, Concepts

_SCRIPTS_WITHOUT_SPACES = (
    r"\u4e00-\u9fff\u3400-\u4dbf\U00020000-\U0002a6df\U0002a700-\U0002ebef\uf900-\ufaff\u2e80-\u2fdf\u2ff0-\u2fff"
    r"\u0e00-\u0eff\u0f00-\u109f\u1780-\u17ff"
)
_PUNCTUATION = r"!-/:-@\[-`{-~，。、；：？！“”‘’（）【】《》〈〉「」『』～—"  # noqa: RUF001
_NEEDS_NO_SPACE = re.compile(f"[{_SCRIPTS_WITHOUT_SPACES}{_PUNCTUATION}]")
_MARKS = r"[,.;:?!`]"
_LINE_ENDS = r"[\t\n\r]"
_PYTHON_WHITESPACE = "\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)
_SEPARATOR = "\n"  # stands in no spaced caption, and in no concept that can match
_CHUNK_CHARACTERS = 2_000_000


@dataclass(frozen=True, slots=True)
class _Automaton:
    """An `AhoCorasick`, and the place among all concepts of each of its patterns."""

    search: Any
    places: np.ndarray


class ConceptMatcher:
    """Finds the concepts of lists in captions, by one Aho-Corasick automaton a list, built once.

    An automaton of 500,000 concepts takes some seconds to build and about 250 MB.

    Args:
        concepts: one list for all captions, or one for each language.
        ignore_case: lower both sides first. Of concepts that are then equal, the first is found.
    """

    def __init__(self, concepts: Concepts, ignore_case: bool = False) -> None:
        self.concepts = concepts
        self._ignore_case = ignore_case
        needles = pl.Series("needle", [spaced_concept(entry) for entry in concepts.entries], dtype=pl.String)
        if ignore_case:
            needles = needles.str.to_lowercase()
        places = concepts.languages or {"": range(len(concepts.entries))}
        self._automata = {language: _automaton(needles, of_list) for language, of_list in places.items()}

    def match(self, captions: pl.Series, languages: pl.Series | None = None) -> pl.Series:
        """The concepts of each caption.

        Args:
            captions: strings; null or empty: there is none.
            languages: of the captions, ISO 639-1 or null; needed where there is a list for each language.

        Returns:
            List(UInt32), as long as `captions`: places among all concepts, ascending; empty if the caption names none;
            null if there is no caption, or no list for its language.
        """
        spaced = captions.rename("text").to_frame().select(_spaced_caption(self._ignore_case)).to_series()
        rows = np.flatnonzero((captions.str.len_bytes() > 0).fill_null(value=False).to_numpy())
        has_list = np.zeros(len(captions), bool)
        pairs = []
        for of_list, automaton in self._rows_of_lists(rows, languages):
            has_list[of_list] = True
            pairs += [(of_list[row], concept) for row, concept in _matches(automaton, spaced.gather(of_list))]
        return _lists(pairs, has_list, len(self.concepts.entries)).rename(captions.name)

    def _rows_of_lists(
        self, rows: np.ndarray, languages: pl.Series | None
    ) -> Iterator[tuple[np.ndarray, _Automaton | None]]:
        """For each list the rows whose captions it applies to, and its automaton."""
        if not self.concepts.languages:
            yield rows, self._automata[""]
            return
        if languages is None:
            raise ValueError("there is a list for each language: match needs the languages of the captions")
        of_row = languages.gather(rows).cast(pl.String)
        named = of_row.is_in(list(self._automata)).fill_null(value=False)
        for language, automaton in self._automata.items():
            chosen = ~named if language == OTHER_LANGUAGES else (of_row == language).fill_null(value=False)
            yield rows[chosen.to_numpy()], automaton


def spaced_concept(concept: str) -> str:
    """The text that a spaced caption must hold: a space on each side that needs one."""
    before = "" if _NEEDS_NO_SPACE.match(concept[0]) else " "
    after = "" if _NEEDS_NO_SPACE.match(concept[-1]) else " "
    return f"{before}{concept}{after}"


def unmatchable(concepts: Concepts) -> list[str]:
    """The concepts that no caption can name, because it would hold a space beside their mark."""
    marked = pl.Series("concept", concepts.entries, dtype=pl.String)
    needles = pl.Series("text", [spaced_concept(entry) for entry in concepts.entries], dtype=pl.String)
    apart = needles.str.replace_all(rf" ?({_MARKS}) ?", " ${1} ").str.strip_chars(" ")
    never = (apart != needles.str.strip_chars(" ")) | needles.str.contains(_LINE_ENDS)
    return marked.filter(never).to_list()


def _spaced_caption(ignore_case: bool) -> pl.Expr:
    text = pl.col("text").str.strip_chars(_PYTHON_WHITESPACE)
    text = text.str.replace_all(_MARKS, " ${0} ").str.replace_all(_LINE_ENDS, " ")
    return pl.format(" {} ", text.str.to_lowercase() if ignore_case else text)


def _automaton(needles: pl.Series, places: range) -> _Automaton | None:
    """An automaton of some of the concepts; None if none of them can match."""
    from ahocorasick_rs import AhoCorasick

    first_places: dict[str, int] = {}
    for place, needle in zip(places, needles[places.start : places.stop], strict=True):
        if _SEPARATOR not in needle:
            first_places.setdefault(needle, place)
    if not first_places:
        return None
    return _Automaton(AhoCorasick(list(first_places), store_patterns=False), np.array(list(first_places.values())))


def _matches(automaton: _Automaton | None, captions: pl.Series) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Row and concept (int64) of each match; a match may come several times. Joined captions are searched at once."""
    if automaton is None or len(captions) == 0:
        return
    ends = np.cumsum(captions.str.len_chars().to_numpy().astype(np.int64) + len(_SEPARATOR))
    bounds = np.unique(np.searchsorted(ends, np.arange(0, ends[-1], _CHUNK_CHARACTERS), side="right")).tolist()

    def search(start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        text = _SEPARATOR.join(captions[start:stop].to_list())
        found = automaton.search.find_matches_as_indexes(text, overlapping=True)
        numbers = np.fromiter(chain.from_iterable(found), np.int64, 3 * len(found)).reshape(-1, 3)
        before = ends[start - 1] if start else 0
        rows = start + np.searchsorted(ends[start:stop] - before, numbers[:, 1], side="right")
        return rows, automaton.places[numbers[:, 0]]

    with ThreadPoolExecutor() as pool:  # the search gives up the lock of the interpreter
        yield from pool.map(search, bounds, [*bounds[1:], len(captions)])


def _lists(pairs: list[tuple[np.ndarray, np.ndarray]], has_list: np.ndarray, concepts: int) -> pl.Series:
    """Pairs of row and concept as one sorted list a row, without repetitions; null where `has_list` is false."""
    rows, places = (np.concatenate([pair[side] for pair in pairs] or [np.empty(0, np.int64)]) for side in (0, 1))
    keys = np.sort(rows * max(concepts, 1) + places, kind="stable")  # in runs that are sorted already: soon done
    rows, places = np.divmod(keys[np.diff(keys, prepend=-1) != 0], max(concepts, 1))
    offsets = np.searchsorted(rows, np.arange(len(has_list) + 1))
    lists = pa.LargeListArray.from_arrays(
        pa.array(offsets, pa.int64()), pa.array(places, pa.uint32()), mask=pa.array(~has_list)
    )
    return pl.Series(lists, dtype=pl.List(pl.UInt32))
