"""Concept matching and concepts by embedding: the cost at 1M captions or pictures.

Matching: one Aho-Corasick automaton of 500,000 concepts for the whole run, against polars' `extract_many`, which builds
its automaton for every batch of 250,000 rows. Both must find the same concepts. By embedding: our exact nearest concept
names, against a plain product and sort in numpy.
"""

from __future__ import annotations

import random
import string
from collections.abc import Sequence

import numpy as np
import polars as pl

from benchmarks.harness import Row, compare, measure, start_clock
from mmdata.config.concept_list import Concepts
from mmdata.select.candidates import BATCH_ROWS
from mmdata.select.concept_matcher import ConceptMatcher, spaced_concept
from mmdata.select.nearest_concepts import nearest_concepts

DIM = 512
NAMES = 1_000
TOP_K = 3


def run(quick: bool) -> list[Row]:
    """Matching at 1M captions and 500,000 concepts, and nearest names at 1M embeddings; a tenth of both if quick."""
    rows, entries = (100_000, 50_000) if quick else (1_000_000, 500_000)
    batch = BATCH_ROWS // (10 if quick else 1)
    build = measure(build_automaton, entries)
    matching = compare(
        f"concepts, {rows:,} captions, {entries:,} entries",
        "captions/s",
        lambda: measure(match_once, rows, entries, batch),
        lambda: measure(match_each_batch, rows, entries, batch),
        rounds=1,
        note=f"automaton built once ({build.cpu_s:.1f} CPU s, {build.peak_mib:,.0f} MiB); peer: polars, once a batch",
    )
    nearest = compare(
        f"concepts by embedding, {rows:,} rows, {NAMES:,} names",
        "rows/s",
        lambda: measure(nearest_ours, rows),
        lambda: measure(nearest_plain, rows),
        rounds=1,
        note=f"the nearest {TOP_K}, exact; peer: float32 product and argsort in numpy, a block at a time",
    )
    return [matching, nearest]


def build_automaton(entries: int) -> float:
    """Build the automaton; work is the entries."""
    concepts = Concepts(_concepts(entries))
    start_clock()
    ConceptMatcher(concepts)
    return float(entries)


def match_once(rows: int, entries: int, batch: int) -> float:
    """Build once, match every batch. Raises AssertionError if the first batch is not matched as the peer does it."""
    concepts, captions = Concepts(_concepts(entries)), _captions(rows, entries)
    start_clock()
    matcher = ConceptMatcher(concepts)
    matches = [matcher.match(captions[start : start + batch]).list.len().sum() for start in range(0, rows, batch)]
    first = _by_polars(captions[:1000], concepts.entries).list.n_unique().sum()
    assert first == matcher.match(captions[:1000]).list.len().sum() > 0
    return float(rows) if sum(matches) else 0.0


def match_each_batch(rows: int, entries: int, batch: int) -> float:
    """Build anew for every batch, as polars does."""
    entries_of_list, captions = _concepts(entries), _captions(rows, entries)
    start_clock()
    for start in range(0, rows, batch):
        _by_polars(captions[start : start + batch], entries_of_list)
    return float(rows)


def nearest_ours(rows: int) -> float:
    """The nearest names of each row."""
    embeddings, vectors = _vectors(rows, 0), _vectors(NAMES, 1)
    start_clock()
    nearest_concepts(embeddings, vectors, TOP_K)
    return float(rows)


def nearest_plain(rows: int) -> float:
    """The same by float32 products, whose last bits decide ties."""
    embeddings, vectors = _vectors(rows, 0), _vectors(NAMES, 1)
    start_clock()
    names = vectors.astype(np.float32).T
    for start in range(0, rows, 1024):
        np.argsort(embeddings[start : start + 1024].astype(np.float32) @ names, axis=1)[:, -TOP_K:]
    return float(rows)


def _by_polars(captions: pl.Series, entries: Sequence[str]) -> pl.Series:
    needles = [spaced_concept(entry) for entry in entries]
    spaced = pl.format(" {} ", pl.col("text"))
    found = spaced.str.extract_many(needles, overlapping=True)
    return captions.rename("text").to_frame().select(found).to_series()


def _words(count: int) -> list[str]:
    draw = random.Random(0)
    return ["".join(draw.choices(string.ascii_lowercase, k=draw.randint(2, 10))) for _ in range(count)]


def _concepts(count: int) -> list[str]:
    """Distinct concepts of one to three words."""
    draw, words = random.Random(1), _words(2 * count // 5)
    concepts: dict[str, None] = {}
    while len(concepts) < count:
        concepts[" ".join(draw.choices(words, k=draw.choice((1, 1, 2, 2, 3))))] = None
    return list(concepts)


def _captions(count: int, entries: int) -> pl.Series:
    """Captions of ten words of the concepts' vocabulary."""
    draw, words = random.Random(2), _words(2 * entries // 5)
    return pl.Series("caption", [" ".join(draw.choices(words, k=10)) for _ in range(count)])


def _vectors(count: int, seed: int) -> np.ndarray:
    """Random unit vectors, float16; drawn in blocks, for a million of them in float32 would take 2 GB more."""
    rng, vectors = np.random.default_rng(seed), np.empty((count, DIM), np.float16)
    for start in range(0, count, 10_000):
        drawn = rng.standard_normal((min(10_000, count - start), DIM), np.float32)
        vectors[start : start + len(drawn)] = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return vectors
