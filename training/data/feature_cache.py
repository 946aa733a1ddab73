"""Features of frozen towers on disk: computed once for each medium, and read in place of the medium ever after.

A table holds features of one shape by key. It is a folder of parts that are never changed, and of a memory-mapped index
over them, so that a killed run continues after its last part, and many processes read one copy.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmdata.errors import DataError
from training.data.index_cache import is_complete, mark_complete, publish_folder

KEY_BYTES = 16
MAX_OPEN_PARTS = 256  # per process; the part that was opened first is closed
_KEY = np.dtype(f"S{KEY_BYTES}")
_PLACE = np.dtype([("part", "<u4"), ("row", "<u4")])
_EMPTY = (np.zeros(0, _KEY), np.zeros(0, _PLACE))


def feature_key(*data: bytes) -> bytes:
    """Names features by what they are computed from: the bytes of a medium or of a text, and how they are varied."""
    digest = hashlib.blake2b(digest_size=KEY_BYTES)
    for piece in data:
        digest.update(len(piece).to_bytes(8, "little"))
        digest.update(piece)
    return digest.digest()


class FeatureTable:
    """Float16 features of one shape by key. It can be pickled, and used in worker processes.

    Args: folder: local; its name says which tower computed the features, and how.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._names: list[str] = []
        self._index: tuple[np.ndarray, np.ndarray] | None = None  # sorted keys, and the place of each
        self._open: dict[int, np.ndarray] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_index": None, "_open": {}}

    def __contains__(self, key: bytes) -> bool:
        return self._find(key) is not None

    def __len__(self) -> int:
        return len(self._opened()[0])

    def get(self, key: bytes) -> Tensor | None:
        """The features of a key, float16; None if the table has none."""
        place = self._find(key)
        return None if place is None else torch.from_numpy(np.array(self._part(place[0])[place[1]]))

    def add(self, keys: Sequence[bytes], features: Tensor, release_id: str | None = None) -> str:
        """Publish a part: features N,… of N keys. `reopen` makes it readable.

        Args: release_id: of the media. It begins the part's name, so that features can be deleted with their release.
        Returns: the part's name.
        """
        name = feature_key(*keys).hex() if release_id is None else f"{release_id}.{feature_key(*keys).hex()}"

        def fill(draft: Path) -> None:
            np.save(draft / "keys.npy", np.array(keys, _KEY))
            np.save(draft / "features.npy", features.to(torch.float16).numpy())
            for file in (draft / "keys.npy", draft / "features.npy"):
                _to_disk(file)
            mark_complete(draft, {"media": len(keys)})

        publish_folder(self.folder / "parts" / name, fill)
        return name

    def parts(self) -> list[str]:
        """Names of the parts that are there."""
        folder = self.folder / "parts"
        return sorted(path.name for path in folder.iterdir() if is_complete(path)) if folder.is_dir() else []

    def reopen(self) -> None:
        """See the parts that were added since."""
        self._index, self._open = None, {}

    def size_bytes(self) -> int:
        """Bytes of all features on disk."""
        return sum((self.folder / "parts" / name / "features.npy").stat().st_size for name in self.parts())

    def _find(self, key: bytes) -> tuple[int, int] | None:
        keys, places = self._opened()
        at = int(np.searchsorted(keys, np.array(key, _KEY)))
        if at == len(keys) or keys[at] != np.array(key, _KEY):
            return None
        return int(places[at]["part"]), int(places[at]["row"])

    def _opened(self) -> tuple[np.ndarray, np.ndarray]:
        if self._index is None:
            self._names = self.parts()
            if not self._names:
                self._index = _EMPTY
                return self._index
            folder = self.folder / "index" / feature_key(*map(str.encode, self._names)).hex()
            if not is_complete(folder):
                publish_folder(folder, self._write_index)
            keys, places = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("keys", "places"))
            self._index = keys, places
        return self._index

    def _write_index(self, draft: Path) -> None:
        all_keys = [np.load(self.folder / "parts" / name / "keys.npy") for name in self._names]
        keys, first = np.unique(np.concatenate(all_keys), return_index=True)
        places = np.zeros(sum(map(len, all_keys)), _PLACE)
        places["part"] = np.repeat(np.arange(len(all_keys)), list(map(len, all_keys)))
        places["row"] = np.concatenate([np.arange(len(part_keys)) for part_keys in all_keys])
        np.save(draft / "keys.npy", keys)
        np.save(draft / "places.npy", places[first])
        mark_complete(draft, {"media": len(keys)})

    def _part(self, number: int) -> np.ndarray:
        if number not in self._open:
            if len(self._open) >= MAX_OPEN_PARTS:
                self._open.pop(next(iter(self._open)))
            path = self.folder / "parts" / self._names[number] / "features.npy"
            self._open[number] = np.load(path, mmap_mode="r")
        return self._open[number]


def text_key(text: str) -> bytes:
    """Of the features of a text."""
    return feature_key(text.encode())


@dataclass(frozen=True, slots=True)
class CachedTexts:
    """Reads the features of texts from a table; it takes the place of a tokenizer."""

    table: FeatureTable

    def __call__(self, texts: list[str]) -> Tensor:
        """Float16 N,C. Raises DataError: the table lacks a text."""
        features = [self.table.get(text_key(text)) for text in texts]
        for text, feature in zip(texts, features, strict=True):
            if feature is None:
                raise DataError(
                    f"{self.table.folder}: lacks the features of the text {text[:60]!r}. "
                    "Remedy: delete the folder, and train again."
                )
        return torch.stack([feature for feature in features if feature is not None])


@dataclass(frozen=True, slots=True)
class CachedFeatures:
    """The tables that stand for frozen towers; None for what is read and run through its tower in each step."""

    picture: FeatureTable | None = None
    sound: FeatureTable | None = None
    text: FeatureTable | None = None


NO_FEATURES = CachedFeatures()


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
