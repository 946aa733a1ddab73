"""Which features a stage is going to read that its tables lack: how many, how large, and of which media."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import Dataset

from mmdata.errors import UserError
from training.data.batch_readers import MAX_REPLACEMENTS, PairReader, RowReader
from training.data.feature_cache import KEY_BYTES, FeatureTable, text_key
from training.data.sample_reader import BadSample

CHUNK_SAMPLES = 32  # read by a worker at once
PROBED_CHUNKS = 16  # in which missing features are counted, to estimate their number
_INDEX_BYTES = 2 * KEY_BYTES + 8  # of a feature: its key in its part and in the index, and its place
Kind = str  # picture, sound or text


class MissingMedium(NamedTuple):
    """A medium or text whose features a table lacks."""

    key: bytes
    medium: Any  # decoded, or a text
    release_id: str | None


Missing = dict[Kind, list[MissingMedium]]


class MissingFeatures(Dataset[Missing]):
    """Reads what the tables lack of some samples, in chunks of samples. It runs in worker processes."""

    def __init__(
        self, reader: PairReader | RowReader, tables: Mapping[Kind, FeatureTable], samples: np.ndarray
    ) -> None:
        self._source, self._tables, self.samples = reader.source, dict(tables), samples

    def __len__(self) -> int:
        return math.ceil(len(self.samples) / CHUNK_SAMPLES)

    def __getitem__(self, chunk: int) -> Missing:
        found: dict[Kind, dict[bytes, MissingMedium]] = {kind: {} for kind in self._tables}
        for index in self.chunk(chunk):
            self._add_sample(found, int(index))
        return {kind: list(entries.values()) for kind, entries in found.items()}

    def chunk(self, number: int) -> np.ndarray:
        """The samples of a chunk."""
        if not 0 <= number < len(self):
            raise IndexError(number)
        return self.samples[number * CHUNK_SAMPLES : (number + 1) * CHUNK_SAMPLES]

    def count(self, chunk: int) -> dict[Kind, int]:
        """How many features the tables lack of a chunk. Nothing is decoded."""
        keys: dict[Kind, set[bytes]] = {kind: set() for kind in self._tables}
        for index in self.chunk(chunk):
            try:
                for kind, key, _, _ in self._media_of(int(index)):
                    keys[kind].add(key)
            except BadSample:
                continue
        return {kind: len(of_kind) for kind, of_kind in keys.items()}

    def _media_of(self, index: int) -> Iterator[tuple[Kind, bytes, Callable[[], Any], str | None]]:
        """What the tables lack of a sample: its kind and key, a function that decodes it, and its release."""
        media = self._source.encoded_media(index)
        entries: list[tuple[Kind, bytes, Callable[[], Any]]] = []
        entries += [("picture", picture.key, picture.decode) for picture in media.pictures]
        entries += [] if media.sound is None else [("sound", media.sound.key, media.sound.decode)]
        if "text" in self._tables:  # the empty text is that of the empty places in a batch
            texts = ["", *self._source.texts(index)]
            entries += [("text", text_key(text), partial(str, text)) for text in texts]
        for kind, key, decode in entries:
            if kind in self._tables and key not in self._tables[kind]:
                yield kind, key, decode, media.release_id

    def _add_sample(self, found: dict[Kind, dict[bytes, MissingMedium]], index: int) -> None:
        """Add what is missing of a sample, or of the one that a reader takes in its place."""
        for tries in range(MAX_REPLACEMENTS):
            try:
                for kind, key, decode, release_id in self._media_of((index + tries) % len(self._source)):
                    if key not in found[kind]:
                        found[kind][key] = MissingMedium(key, decode(), release_id)
            except BadSample:
                continue
            return


def samples_read(reader: PairReader | RowReader, samples: int) -> np.ndarray:
    """Indices of the samples that a reader gives first, ascending, so that shards are read from front to end."""
    is_read = np.zeros(len(reader.source), bool)
    for epoch, left in enumerate(range(samples, 0, -reader.order.n)):
        is_read[reader.order.pick(epoch, np.arange(min(left, reader.order.n))).samples] = True
        if is_read.all():
            break
    return np.flatnonzero(is_read)


@dataclass(frozen=True, slots=True)
class FeaturePlan:
    """About how many features are going to be computed, over all ranks, and the disk that they take."""

    counts: dict[Kind, int]
    sizes: dict[Kind, int]  # bytes of one
    folder: Path
    free_bytes: int  # of the folder's disk

    @property
    def media(self) -> int:
        return sum(self.counts.values())

    @property
    def bytes(self) -> int:
        return sum(count * (self.sizes[kind] + _INDEX_BYTES) for kind, count in self.counts.items())

    def told(self) -> dict[str, float]:
        """For the log."""
        return {"media": float(self.media), "bytes": float(self.bytes), "free_bytes": float(self.free_bytes)}

    def check_disk(self) -> None:
        """Raises UserError: the features do not fit on the disk."""
        if self.bytes <= self.free_bytes:
            return
        media = ", ".join(
            f"{count:,} x {self.sizes[kind] / 1000:,.1f} kB of {kind}" for kind, count in self.counts.items() if count
        )
        raise UserError(
            f"data.cache_features: the features that are missing take about {self.bytes / 1e9:,.2f} GB ({media}), and "
            f"the disk of {self.folder} has {self.free_bytes / 1e9:,.2f} GB free. Remedy: an --output on a disk with "
            "more space, or data.cache_features = false."
        )


def plan_features(missing: Sequence[MissingFeatures], sizes: dict[Kind, int], folder: Path) -> FeaturePlan:
    """Estimate what the tables lack from PROBED_CHUNKS chunks of each reader's samples, evenly spaced.

    A chunk is of neighbours, because the instructions about one picture are neighbours and share its features.

    Args:
        sizes: bytes of the features of one medium, by kind.
        folder: of the tables; it need not exist.
    """
    counts = dict.fromkeys(sizes, 0)
    for of_reader in missing:
        last = len(of_reader) - 1
        chunks = sorted({round(last * at / (PROBED_CHUNKS - 1)) for at in range(PROBED_CHUNKS)})
        probed = sum(len(of_reader.chunk(chunk)) for chunk in chunks)
        for chunk in chunks:
            for kind, count in of_reader.count(chunk).items():
                counts[kind] += math.ceil(count * len(of_reader.samples) / probed)
    disk = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    return FeaturePlan(counts, sizes, folder, shutil.disk_usage(disk).free)
