"""Decontamination: samples that match an item of an evaluation set stay out, whatever their caption or source."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from mmdata.config.evaluation_set import EvaluationSet
from mmdata.documents import DOCUMENT, picture_urls
from mmdata.observe import logs
from mmdata.select.candidates import file_hash, place_hashes
from mmdata.select.decide import is_kind
from mmdata.select.dedup import near_any
from mmdata.select.embeddings import gather_embeddings
from mmdata.select.evaluation_sets import Prints, load_prints, set_problem
from mmdata.select.near_texts import read_captions, texts_like
from mmdata.select.scores.exact import DOUBT, cosines
from mmdata.select.selection_inputs import SelectionInputs
from mmdata.select.verdicts import Verdicts
from mmdata.storage.tables import read_table

_log = logs.logger(__name__)

CONTAMINATED = "contaminated"
_BLOCK = 4096


def drop_contaminated(inputs: SelectionInputs, frame: pl.DataFrame, verdicts: Verdicts) -> None:
    """Drop the samples that match an evaluation set; a sample that matches several has the reason of the first.

    A sample matches by its URL, by the SHA-256 of its file, by its perceptual hash or by its embedding; a text by its
    words. Captions and languages do not count: the picture of another caption is the same picture. Of a clip, hash and
    embedding are those of its frames together, and the URL is that of its film. A document matches by the URL or the
    SHA-256 of any of its pictures. Time grows with samples times items.

    Args:
        frame: all candidates; those that are kept so far are compared.
        verdicts: written into.

    Raises:
        UserError: an evaluation set is missing, empty, or does not fit the scorer; names it.
    """
    for wanted in inputs.corpus.select.decontaminate:
        prints = load_prints(inputs.workspace, wanted, inputs.corpus.score, inputs.scorer)
        rows = verdicts.kept()
        shown_by_url, shown_by_file = _by_picture(inputs, frame, rows, prints)
        files = np.isin(frame["sha256"].gather(rows).fill_null(0).to_numpy(), prints.sha256[prints.sha256 != 0])
        by_way = {
            "url": _by_url(frame, rows, prints) | shown_by_url,
            "sha256": files | shown_by_file,
            "phash": _by_phash(frame, rows, prints, wanted.phash_bits),
            "embedding": _by_embedding(inputs, frame, rows, prints, wanted),
            "text": _by_text(inputs, frame, rows, prints, wanted.text_similarity),
        }
        matched = np.logical_or.reduce(list(by_way.values()))
        verdicts.drop(rows[matched], f"{CONTAMINATED}:{wanted.name}")
        counts: dict[str, Any] = {way: int(hits.sum()) for way, hits in by_way.items()}
        _log.info("compared with an evaluation set", set=wanted.name, contaminated=int(matched.sum()), **counts)


def _by_url(frame: pl.DataFrame, rows: np.ndarray, prints: Prints) -> np.ndarray:
    places = np.isin(frame["url"].gather(rows).fill_null(0).to_numpy(), place_hashes(prints.urls))
    files = np.array([file_hash(url) for url in prints.urls], np.uint64)
    return places | np.isin(frame["file"].gather(rows).fill_null(0).to_numpy(), files)


def _by_picture(
    inputs: SelectionInputs, frame: pl.DataFrame, rows: np.ndarray, prints: Prints
) -> tuple[np.ndarray, np.ndarray]:
    """Which rows are documents that show a picture of the set, by its URL and by its file: bool (n,) each."""
    by_url, by_file = np.zeros(len(rows), bool), np.zeros(len(rows), bool)
    documents = np.flatnonzero(is_kind(frame, DOCUMENT)[rows])
    place, row = (frame[name].gather(rows[documents]).to_numpy() for name in ("place", "row"))
    urls, files = frozenset(prints.urls), frozenset(prints.sha256[prints.sha256 != 0].tolist())
    for number in np.unique(place):
        of_slice = np.flatnonzero(place == number)
        extras = read_table(inputs.tables("rows")[number], ["extra"])["extra"].take(row[of_slice])
        by_url[documents[of_slice]] = [not urls.isdisjoint(picture_urls(extra)) for extra in extras.to_pylist()]
        pictures = read_table(inputs.tables("media")[number], ["pictures"])["pictures"].take(row[of_slice])
        by_file[documents[of_slice]] = [
            any(int(one["sha256"][:16], 16) in files for one in of_document or () if one["sha256"])
            for of_document in pictures.to_pylist()
        ]
    return by_url, by_file


def _by_phash(frame: pl.DataFrame, rows: np.ndarray, prints: Prints, bits: int | None) -> np.ndarray:
    matched = np.zeros(len(rows), bool)
    hashes = frame["phash"].gather(rows).fill_null(0).to_numpy()
    hashed = np.flatnonzero(hashes)  # 0 is the hash of every flat picture
    if bits is not None and len(prints.phash) and len(hashed):
        matched[hashed] = near_any(hashes[hashed], prints.phash, bits)
    return matched


def _by_embedding(
    inputs: SelectionInputs, frame: pl.DataFrame, rows: np.ndarray, prints: Prints, wanted: EvaluationSet
) -> np.ndarray:
    matched = np.zeros(len(rows), bool)
    if wanted.min_cosine is None or not len(prints.vectors):
        return matched
    place, row = frame["place"].gather(rows).to_numpy(), frame["row"].gather(rows).to_numpy()
    with gather_embeddings(inputs.tables("features"), place, row, inputs.embedding_counter(len(rows))) as held:
        vectors, positions = held
        if len(positions) and vectors.shape[1] != prints.vectors.shape[1]:
            raise set_problem(
                wanted, f"has embeddings of {prints.vectors.shape[1]} numbers, and the corpus of {vectors.shape[1]}"
            )
        matched[positions] = reaches(vectors, prints.vectors, wanted.min_cosine)
    return matched


def reaches(vectors: np.ndarray, others: np.ndarray, least: float) -> np.ndarray:
    """Which vectors have at least the cosine `least` to one of `others`: bool (n,).

    Exact: a product that is near the bound is computed again without rounding.

    Args:
        vectors, others: unit vectors, float16 (n, d) and (m, d); the first may be a memory map.
    """
    matched = np.zeros(len(vectors), bool)
    for start in range(0, len(vectors), _BLOCK):
        block = np.asarray(vectors[start : start + _BLOCK])
        wide = block.astype(np.float32)
        for first in range(0, len(others), _BLOCK):
            theirs = others[first : first + _BLOCK]
            products = wide @ theirs.astype(np.float32).T
            best = products.max(axis=1)
            matched[start : start + len(block)] |= best >= least + DOUBT
            doubtful = np.flatnonzero((best >= least - DOUBT) & ~matched[start : start + len(block)])
            if len(doubtful):
                exact = cosines(block[doubtful].astype(np.float64), theirs.T.astype(np.float64))
                matched[start + doubtful] |= (exact >= least).any(axis=1)
    return matched


def _by_text(
    inputs: SelectionInputs, frame: pl.DataFrame, rows: np.ndarray, prints: Prints, least: float | None
) -> np.ndarray:
    matched = np.zeros(len(rows), bool)
    texts = np.flatnonzero(is_kind(frame, "text")[rows])
    if least is None or not prints.texts or not len(texts):
        return matched
    place, row = frame["place"].gather(rows[texts]).to_numpy(), frame["row"].gather(rows[texts]).to_numpy()
    captions = read_captions(inputs.tables("rows"), place, row)
    matched[texts] = texts_like(captions, pl.Series(prints.texts, dtype=pl.String), least)
    return matched
