"""A user's own instruction file: checked record by record, and indexed as a release's records are.

Forms: the record form `{"instruction", "input_image", "reference_image", "output"}`, LLaVA `conversations`, and chat
`messages`; as a JSON list or as JSONL. Media are files in folders, members of tar files, or base64 in the record.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from filelock import FileLock

from mmdata.errors import DataError, UserError
from mmdata.fingerprint import file_sha256
from mmdata.samples import estimate_tokens
from training.data.index_cache import RowTable, build_once, is_complete, mark_complete, read_mark
from training.data.json_records import JsonRecord, json_records, parsed_record
from training.data.order import hash_bytes
from training.data.own_checks import Checked, RecordChecker
from training.data.own_media import MediaPlaces

OWN_RECORD = np.dtype(
    [
        ("offset", "<i8"),  # in the file, in bytes
        ("length", "<i8"),  # in the file, in bytes
        ("line", "<i8"),  # of its first byte, from 1
        ("first", "<i8"),  # position of its first medium in `places.npy`
        ("tokens", "<u4"),  # of all turns, estimated
        ("images", "u1"),
        ("sounds", "u1"),
    ]
)
"""A row of the memory-mapped index of an own file: 38 bytes, and 20 for each medium."""
PLACE = np.dtype([("number", "<i4"), ("offset", "<i8"), ("length", "<i8")])
"""Where a medium lies: the fields of `own_media.Place`."""

COUNTS = ("train", "validation", "bad", "left_out")  # of the records of a file
_BATCH_RECORDS, _BATCH_BYTES = 256, 64 << 20  # that are checked side by side
_SHOWN_PROBLEMS = 3  # in an error


@dataclass(frozen=True, slots=True)
class OwnRecords:
    """An indexed file of own instruction records."""

    path: Path
    places: MediaPlaces
    digest: str  # of the file's content, the records that are bad, and the share that is held out
    folder: Path  # of the memory-mapped tables
    counts: dict[str, int]  # records: train, validation, bad, and left_out, whose answers are pictures
    left_out_path: Path  # JSONL: file, line and reason of the records that are not used

    @property
    def id(self) -> str:
        """The file's name."""
        return self.path.name

    def table(self, name: Literal["train", "validation", "places"]) -> np.ndarray:
        """A split's rows of OWN_RECORD, in the file's order, or the rows of PLACE; memory-mapped."""
        return np.load(self.folder / f"{name}.npy", mmap_mode="r")

    def record(self, row: np.void) -> dict[str, Any]:
        """A record as it is written. Raises DataError: the file has been edited since it was indexed."""
        with self.path.open("rb") as file:
            file.seek(int(row["offset"]))
            data = file.read(int(row["length"]))
        try:
            return dict(json.loads(data))
        except ValueError:
            raise DataError(
                f"{self.path}: line {row['line']}: the record has changed: the file was edited while it was read. "
                "Remedy: the same command again."
            ) from None


def open_own_records(
    path: Path, pictures: list[Path], held_out: float, cache: Path, max_bad_share: float
) -> OwnRecords:
    """Check and index a file of own records, or open the index that was made before.

    Every record is parsed, and every picture and sound is decoded once. A record that cannot be used is left out, with
    its line and the reason in `<cache>/<name>-….left-out.jsonl`. Bad records are tried again each time, in case they
    have been mended.

    Args:
        pictures: folders and tar files of the media; none: the file's folder.
        held_out: share of the records that validate. Records with the same first picture go the same way.
        cache: local folder for memory-mapped files.

    Raises:
        UserError: the file or a place of pictures is missing.
        DataError: the file is no JSON, or a larger share of the records than `max_bad_share` is bad; names lines.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file of records. Remedy: the path of a JSON list or of a JSONL file.")
    roots = [place.resolve() for place in pictures or [path.parent]]
    places = MediaPlaces(roots)
    sha256 = file_sha256(path)
    key = hashlib.sha256(f"{sha256} {path.name} {roots} {held_out} {OWN_RECORD} {PLACE}".encode()).hexdigest()[:16]
    folder, left_out_path = cache / f"own-{key}", cache / f"{path.name}-{key}.left-out.jsonl"
    checker = RecordChecker(places)
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / f".own-{key}.mended.lock"):  # of several processes one deletes it, and the others see that
        if is_complete(folder) and _is_any_mended(path, left_out_path, checker):
            shutil.rmtree(folder)
    build_once(folder, lambda draft: _write_index(path, checker, held_out, draft, left_out_path))
    counts = read_mark(folder)
    bad = list(_bad_records(left_out_path))
    _check_bad_share(path, bad, sum(counts.values()), max_bad_share, left_out_path)
    digest = hashlib.sha256(f"{sha256} {[problem['line'] for problem in bad]} {held_out}".encode()).hexdigest()
    return OwnRecords(path, places, digest, folder, counts, left_out_path)


def _write_index(path: Path, checker: RecordChecker, held_out: float, folder: Path, left_out_path: Path) -> None:
    draft = left_out_path.with_name(f".tmp-{os.getpid()}-{left_out_path.name}")
    bad, left_out, media = 0, 0, 0
    with (
        RowTable(folder / "train.npy", OWN_RECORD) as train,
        RowTable(folder / "validation.npy", OWN_RECORD) as validation,
        RowTable(folder / "places.npy", PLACE) as places,
        draft.open("w", encoding="utf-8") as problems,
        ThreadPoolExecutor() as threads,
    ):
        for batch in _batches(json_records(path)):
            usable: list[Checked] = []
            for checked in threads.map(checker.check, batch):
                if checked.problem is None:
                    usable.append(checked)
                    continue
                bad, left_out = bad + checked.is_bad, left_out + (not checked.is_bad)
                problems.write(json.dumps(_problem_line(path, checked), ensure_ascii=False) + "\n")
            rows = _rows(usable, media)
            is_held_out = np.array([_is_held_out(checked, held_out) for checked in usable], bool)
            train.append(rows[~is_held_out])
            validation.append(rows[is_held_out])
            places.append(np.array([tuple(place) for checked in usable for place in checked.places], PLACE))
            media += sum(len(checked.places) for checked in usable)
    draft.replace(left_out_path)
    mark_complete(folder, dict(zip(COUNTS, (train.count, validation.count, bad, left_out), strict=True)))


def _batches(records: Iterator[JsonRecord]) -> Iterator[list[JsonRecord]]:
    """Lists of records that are not too large for memory, even if pictures are in them."""
    batch: list[JsonRecord] = []
    for record in records:
        batch.append(record)
        if len(batch) == _BATCH_RECORDS or sum(each.length for each in batch) > _BATCH_BYTES:
            yield batch
            batch = []
    yield batch


def _rows(usable: list[Checked], media: int) -> np.ndarray:
    """Rows of OWN_RECORD. Args: media: number of media of the records before these."""
    rows = np.zeros(len(usable), OWN_RECORD)
    conversations = [checked.conversation for checked in usable if checked.conversation is not None]
    for name in ("offset", "length", "line"):
        rows[name] = [getattr(checked.record, name) for checked in usable]
    rows["images"] = [len(conversation.images) for conversation in conversations]
    rows["sounds"] = [len(conversation.sounds) for conversation in conversations]
    counts = rows["images"].astype(np.int64) + rows["sounds"]
    rows["first"] = media + np.cumsum(counts) - counts
    texts = pl.DataFrame(
        {"text": ["\n".join(turn.text for turn in c.turns) for c in conversations]}, {"text": pl.String}
    )
    rows["tokens"] = texts.select(estimate_tokens(pl.col("text")))["text"].to_numpy()
    return rows


def _is_held_out(checked: Checked, share: float) -> bool:
    """A draw by the first medium of a record, or by its first text."""
    conversation = checked.conversation
    assert conversation is not None
    shown = [*conversation.images, *conversation.sounds, conversation.turns[0].text]
    return int.from_bytes(hash_bytes("held out", shown[0]), "little") < share * 2**64


def _problem_line(path: Path, checked: Checked) -> dict[str, Any]:
    record = checked.record
    place = {"file": str(path), "line": record.line, "offset": record.offset, "length": record.length}
    return {**place, "reason": checked.problem, "bad": checked.is_bad}


def _bad_records(left_out_path: Path) -> Iterator[dict[str, Any]]:
    with left_out_path.open(encoding="utf-8") as file:
        yield from (problem for problem in map(json.loads, file) if problem["bad"])


def _is_any_mended(path: Path, left_out_path: Path, checker: RecordChecker) -> bool:
    """Whether a record that was bad can be used now, because its picture is there; or the list of them is gone."""
    if not left_out_path.exists():
        return True
    with path.open("rb") as file:
        for problem in _bad_records(left_out_path):
            file.seek(problem["offset"])
            record = parsed_record(problem["line"], problem["offset"], file.read(problem["length"]))
            if checker.check(record).problem is None:
                return True
    return False


def _check_bad_share(path: Path, bad: list[dict[str, Any]], total: int, most: float, left_out_path: Path) -> None:
    if len(bad) <= most * total:
        return
    lines = [f"  line {problem['line']}: {problem['reason']}" for problem in bad[:_SHOWN_PROBLEMS]]
    raise DataError(
        f"{path}: {len(bad)} of {total} records cannot be used, more than data.max_bad_share = {most:g}:\n"
        + "\n".join(lines)
        + f"\nAll of them are in {left_out_path}. Remedy: mend them, or a larger data.max_bad_share."
    )
