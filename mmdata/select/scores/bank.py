"""The bank: pairs of the corpus that scores compare with, drawn once by hash of uid and kept with the workspace."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from upath import UPath

from mmdata.errors import DataError, UserError
from mmdata.fingerprint import fingerprint
from mmdata.samples import hash_words, uid_words
from mmdata.select.embeddings import read_vectors
from mmdata.storage.atomic import publish_bytes
from mmdata.storage.tables import read_table

OUTGROWN = 2
"""A bank that the corpus could not fill is drawn anew when the corpus has this many times its pairs."""

_SPARE = 2  # hashes that are looked at for each pair that is wanted: some rows lack a vector, or repeat a pair


@dataclass(frozen=True, slots=True)
class Bank:
    """Distinct pairs of pictures and captions.

    Args:
        pictures, texts: float16 (n, d), unit vectors.
        uids: of the pairs; a sample that is left out of the corpus leaves the bank, too.
        wanted: pairs that were asked for; n is smaller where the corpus had fewer.
    """

    pictures: np.ndarray
    texts: np.ndarray
    uids: tuple[str, ...]
    wanted: int

    @property
    def digest(self) -> str:
        """Names the pairs."""
        return hashlib.sha256(self.pictures.tobytes() + self.texts.tobytes()).hexdigest()[:16]

    @property
    def is_full(self) -> bool:
        return len(self.uids) >= self.wanted


def bank_path(folder: UPath, scorer: str, wanted: int) -> UPath:
    """Where a bank lies: one for each scorer and size."""
    return folder / f"bank-{fingerprint(scorer, wanted)}.npz"


def leave_out(folder: UPath, uids: frozenset[str]) -> None:
    """Take samples out of all banks in a folder, those that no score uses included: they were opted out or forgotten.

    Raises:
        DataError: a bank cannot be read; names it.
    """
    for path in sorted(folder.glob("bank-*.npz"), key=str) if uids and folder.exists() else ():
        bank = _read(path)
        if bank is not None and not uids.isdisjoint(bank.uids):
            stay = np.array([uid not in uids for uid in bank.uids])
            left = tuple(uid for uid in bank.uids if uid not in uids)
            wanted = len(left) if bank.is_full else bank.wanted  # a full bank stays full: it is not drawn anew
            _write(path, Bank(bank.pictures[stay], bank.texts[stay], left, wanted))


def keep_bank(path: UPath, tables: Sequence[UPath], wanted: int, seed: int) -> Bank:
    """The bank of a corpus: the stored one, else a new draw, which is stored.

    A full bank stays as it was drawn, whatever is added to the corpus. One that the corpus could not fill is drawn
    anew when there are twice as many pairs; all scores that use it change then.

    Args:
        tables: the features tables.
        wanted: number of pairs.

    Raises:
        UserError: the corpus has fewer than two pairs with both vectors.
        DataError: the stored bank or a table cannot be read; names it.
    """
    bank = _read(path)
    if bank is None or (not bank.is_full and _count_pairs(tables) >= OUTGROWN * len(bank.uids)):
        bank = draw_bank(tables, wanted, seed)
        _write(path, bank)
    return bank


def draw_bank(tables: Sequence[UPath], wanted: int, seed: int) -> Bank:
    """The pairs of scored samples with the lowest hashes of uid; the same for every order of rows and tables."""
    lowest = pl.DataFrame(schema={"hash": pl.UInt64, "uid": pl.String, "place": pl.UInt32, "row": pl.UInt32})
    limit = _SPARE * wanted
    while True:
        for place, table in enumerate(tables):
            scored = _scored_rows(table)
            hashes = pl.Series("hash", hash_words(*uid_words(scored["uid"]), seed, "bank"), pl.UInt64)
            of_table = scored.select(hashes, "uid", pl.lit(place, pl.UInt32).alias("place"), "row")
            lowest = pl.concat([lowest, of_table]).sort("hash", "uid", "place").unique("uid", maintain_order=True)
            lowest = lowest.head(limit)
        bank = _with_vectors(tables, lowest, wanted)
        if bank.is_full or len(lowest) < limit:
            break
        limit *= 4  # most of the rows lack a vector or repeat a pair
    if len(bank.uids) < 2:
        raise UserError(
            f"select.scores: a bank needs pairs of pictures and captions; {len(bank.uids)} of the corpus have both "
            "vectors. Remedy: `score.text_embeddings: true`, then `mmdata build`; or leave the score out."
        )
    return bank


def _with_vectors(tables: Sequence[UPath], lowest: pl.DataFrame, wanted: int) -> Bank:
    """The first `wanted` of these rows that have both vectors, and are no repetition of an earlier pair."""
    pairs: list[tuple[int, np.ndarray, np.ndarray]] = []
    order = lowest.with_row_index("rank")
    for (place,), rows in order.group_by("place", maintain_order=True):
        ranks, numbers = rows["rank"].to_numpy(), rows["row"].to_numpy()
        pictures, have_picture = read_vectors(tables[int(str(place))], numbers, "embedding")
        texts, have_text = read_vectors(tables[int(str(place))], numbers, "text_embedding")
        both, at_picture, at_text = np.intersect1d(have_picture, have_text, return_indices=True)
        pairs += zip(ranks[both].tolist(), pictures[at_picture], texts[at_text], strict=True)
    distinct: dict[bytes, tuple[int, np.ndarray, np.ndarray]] = {}
    for pair in sorted(pairs, key=lambda pair: pair[0]):
        distinct.setdefault(pair[1].tobytes() + pair[2].tobytes(), pair)
    chosen = list(distinct.values())[:wanted]
    if not chosen:
        return Bank(np.empty((0, 0), np.float16), np.empty((0, 0), np.float16), (), wanted)
    ranks, of_pictures, of_texts = zip(*chosen, strict=True)
    return Bank(np.stack(of_pictures), np.stack(of_texts), tuple(lowest["uid"].gather(list(ranks))), wanted)


def _scored_rows(table: UPath) -> pl.DataFrame:
    """uid and row number of the samples that have a score, and so both vectors."""
    columns = pl.DataFrame(read_table(table, ["uid", "clip_score"])).with_row_index("row")
    return columns.filter(pl.col("clip_score").is_finite().fill_null(False)).select("uid", "row")


def _count_pairs(tables: Sequence[UPath]) -> int:
    return sum(len(_scored_rows(table)) for table in tables)


def _write(path: UPath, bank: Bank) -> None:
    buffer = io.BytesIO()
    uids = np.array(bank.uids, "S32")
    np.savez(buffer, pictures=bank.pictures, texts=bank.texts, uids=uids, wanted=np.array(bank.wanted))
    publish_bytes(path, buffer.getvalue())


def _read(path: UPath) -> Bank | None:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        with np.load(io.BytesIO(data)) as held:
            uids = tuple(uid.decode() for uid in held["uids"])
            return Bank(held["pictures"], held["texts"], uids, int(held["wanted"]))
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path}: not a bank ({error}). Remedy: delete it; a new one is drawn, and all scores that use it change."
        ) from None
