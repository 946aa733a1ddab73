"""Fills the tables of cached features: each frozen tower runs once on each medium that a stage is going to read."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mmdata.errors import UserError
from training.config import TrainConfig
from training.data.batch_readers import MAX_REPLACEMENTS, PairReader, RowReader
from training.data.feature_cache import CachedFeatures, FeatureTable, text_key
from training.data.media_tensors import EncodedMedium
from training.data.sample_reader import BadSample
from training.distributed.gradients import Autocast
from training.distributed.process_mesh import Mesh
from training.model.encoders import DualEncoder
from training.model.towers import Tower
from training.stages.stage_model import StageModel

CHUNK_SAMPLES = 32  # read by a worker at once
TOWER_BATCH = 32  # media that go through a tower at once
PART_BYTES = 64 << 20  # of features that are held in memory before they are written
Kind = str  # picture, sound or text

Missing = dict[Kind, list[tuple[bytes, Any]]]  # keys, and decoded media or texts


@dataclass(frozen=True, slots=True)
class FrozenTower:
    """A tower, or the body of one, that a stage does not train."""

    compute: Callable[[Any], Tensor]  # decoded media (stacked) or texts -> features M,…
    table: FeatureTable


def frozen_towers(built: StageModel, config: TrainConfig, folder: Path) -> dict[Kind, FrozenTower]:
    """The frozen towers of a stage by kind of medium, each with its table in the folder.

    Empty if `data.cache_features` is off. Towers that stage `align` trains are not in it.

    Raises UserError: a picture looks different in each epoch, so that its features cannot be kept.
    """
    if not config.data.cache_features:
        return {}
    model: Any = built.model
    precision = config.parallel.precision

    def frozen(kind: Kind, compute: Callable[[Any], Tensor], tower: Any, *how: object) -> FrozenTower:
        return FrozenTower(compute, FeatureTable(folder / f"{kind}-{_fingerprint(tower, kind, precision, *how)}"))

    towers: dict[Kind, FrozenTower] = {}
    if isinstance(model, DualEncoder):
        if model.vision.body_frozen:
            _check_pictures_stay(config)
            preprocess = model.vision.preprocess
            towers["picture"] = frozen("picture", model.picture_body, model.vision, "body", preprocess)
        if model.text.body_frozen:
            towers["text"] = frozen("text", model.text_body, model.text, "body")
        return towers
    # If the embedding is read, it is the table of stage `align`, whose body was frozen too.
    how: tuple[object, ...] = ("maps", model.plan)
    if config.model.picture_features == "embedding":
        how = ("body",)
    elif model.settings.picture_layer != -1:
        how = (*how, model.settings.picture_layer)
    towers["picture"] = frozen("picture", model.frozen_features, model.vision, *how, model.vision.preprocess)
    if model.audio is not None:
        towers["sound"] = frozen("sound", model.sound_features, model.audio, model.audio.samples)
    return towers


def _check_pictures_stay(config: TrainConfig) -> None:
    if config.align.crop_scale < 1:
        raise UserError(
            f"data.cache_features: align.crop_scale {config.align.crop_scale:g} crops a picture anew in each epoch, so "
            "the features of a frozen tower change. Remedy: align.crop_scale = 1.0, or data.cache_features = false."
        )
    if config.align.masked_weight > 0:
        raise UserError(
            "data.cache_features: align.masked_weight needs the pictures themselves in each step. "
            "Remedy: align.masked_weight = 0, or data.cache_features = false."
        )


def cached_features(towers: dict[Kind, FrozenTower]) -> CachedFeatures:
    """The tables for the readers of a stage."""
    return CachedFeatures(**{kind: tower.table for kind, tower in towers.items()})


def _fingerprint(tower: torch.nn.Module, *how: object) -> str:
    """Names the weights of a tower without its head, and how its features are made."""
    digest = hashlib.sha256(repr(how).encode())
    for name, tensor in sorted(tower.state_dict().items()):
        if not (isinstance(tower, Tower) and tower.is_of_head(name)) and not name.startswith("proj."):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


@torch.no_grad()
def fill_tables(
    built: StageModel,
    towers: dict[Kind, FrozenTower],
    wanted: Sequence[tuple[PairReader | RowReader, int]],
    mesh: Mesh,
    workers: int,
    autocast: Autocast,
) -> dict[str, float]:
    """Compute the features that are missing. Each rank computes its share of the samples.

    Args:
        wanted: readers, and the number of samples that each is going to read, in its order.

    Returns: `media` computed on this rank, `bytes` of all tables, and `seconds`.
    Raises UserError: the ranks do not see each other's files.
    """
    begun = time.monotonic()
    built.model.eval()
    names: list[str] = []
    media = 0
    for reader, samples in wanted:
        missing = MissingFeatures(reader, towers, _samples_read(reader, samples)[mesh.rank("dp") :: mesh.size("dp")])
        loader: DataLoader[Missing] = DataLoader(missing, batch_size=None, num_workers=min(workers, len(missing)))
        writers = {kind: _PartWriter(tower, mesh.device, autocast) for kind, tower in towers.items()}
        for found in loader:
            for kind, entries in found.items():
                names += writers[kind].add(entries)
        for writer in writers.values():
            names += writer.flush()
            media += writer.count
        for tower in towers.values():
            tower.table.reopen()
    _check_shared(towers, names, mesh)
    size = sum(tower.table.size_bytes() for tower in towers.values())
    return {"media": float(media), "bytes": float(size), "seconds": time.monotonic() - begun}


def _samples_read(reader: PairReader | RowReader, samples: int) -> np.ndarray:
    """Indices of the samples that a reader gives first, ascending, so that shards are read from front to end."""
    count = len(reader.source)
    if samples >= reader.order.n:
        return np.arange(count)
    return np.unique(reader.order.pick(0, np.arange(samples)).samples)


def _check_shared(towers: dict[Kind, FrozenTower], names: list[str], mesh: Mesh) -> None:
    if mesh.size("dp") == 1:
        return
    everywhere = {name for of_rank in mesh.gather_objects(names) for name in of_rank}
    for tower in towers.values():
        tower.table.reopen()
    seen = {name for tower in towers.values() for name in tower.table.parts()}
    if not everywhere <= seen:
        raise UserError(
            "data.cache_features: the processes do not see each other's files. "
            "Remedy: an --output on a disk that they share, or data.cache_features = false."
        )


class MissingFeatures(Dataset[Missing]):
    """Reads what a table lacks, in chunks of samples. It runs in worker processes."""

    def __init__(self, reader: PairReader | RowReader, towers: dict[Kind, FrozenTower], samples: np.ndarray) -> None:
        self._source = reader.source
        self._tables = {kind: tower.table for kind, tower in towers.items()}
        self._samples = samples

    def __len__(self) -> int:
        return math.ceil(len(self._samples) / CHUNK_SAMPLES)

    def __getitem__(self, chunk: int) -> Missing:
        if not 0 <= chunk < len(self):
            raise IndexError(chunk)
        found: dict[Kind, dict[bytes, Any]] = {kind: {} for kind in self._tables}
        if "text" in found:
            self._add_text(found["text"], "")  # of the empty places in a batch
        for index in self._samples[chunk * CHUNK_SAMPLES : (chunk + 1) * CHUNK_SAMPLES]:
            self._add_sample(found, int(index))
        return {kind: list(entries.items()) for kind, entries in found.items()}

    def _add_sample(self, found: dict[Kind, dict[bytes, Any]], index: int) -> None:
        """Add what is missing of a sample, or of the one that a reader takes in its place."""
        for tries in range(MAX_REPLACEMENTS):
            at = (index + tries) % len(self._source)
            try:
                media = self._source.encoded_media(at)
                if "picture" in found:
                    for picture in media.pictures:
                        self._add_medium(found["picture"], picture, self._tables["picture"])
                if "sound" in found and media.sound is not None:
                    self._add_medium(found["sound"], media.sound, self._tables["sound"])
                if "text" in found:
                    for text in self._source.texts(at):
                        self._add_text(found["text"], text)
            except BadSample:
                continue
            return

    @staticmethod
    def _add_medium(entries: dict[bytes, Any], medium: EncodedMedium, table: FeatureTable) -> None:
        key = medium.key
        if key not in entries and key not in table:
            entries[key] = medium.decode()

    def _add_text(self, entries: dict[bytes, Any], text: str) -> None:
        key = text_key(text)
        if key not in self._tables["text"]:
            entries[key] = text


class _PartWriter:
    """Runs a tower on media as they come, and publishes their features in parts of bounded size."""

    def __init__(self, tower: FrozenTower, device: torch.device, autocast: Autocast) -> None:
        self._tower, self._device, self._autocast = tower, device, autocast
        self._waiting: list[tuple[bytes, Any]] = []
        self._keys: list[bytes] = []
        self._features: list[Tensor] = []
        self._bytes = 0
        self._seen: set[bytes] = set()

    @property
    def count(self) -> int:
        """Media that were computed."""
        return len(self._seen)

    def add(self, entries: Sequence[tuple[bytes, Any]]) -> list[str]:
        """Returns: the names of the parts that were published."""
        for key, medium in entries:
            if key not in self._seen:
                self._seen.add(key)
                self._waiting.append((key, medium))
        names = []
        while len(self._waiting) >= TOWER_BATCH:
            self._compute()
            if self._bytes >= PART_BYTES:
                names.append(self._publish())
        return names

    def flush(self) -> list[str]:
        """Publish the rest."""
        while self._waiting:
            self._compute()
        return [self._publish()] if self._keys else []

    def _compute(self) -> None:
        batch, self._waiting = self._waiting[:TOWER_BATCH], self._waiting[TOWER_BATCH:]
        media = [medium for _, medium in batch]
        inputs = media if isinstance(media[0], str) else torch.stack(media).to(self._device)
        with self._autocast():
            features = self._tower.compute(inputs).to(torch.float16).cpu()
        self._keys += [key for key, _ in batch]
        self._features.append(features)
        self._bytes += features.numel() * features.element_size()

    def _publish(self) -> str:
        name = self._tower.table.add(self._keys, torch.cat(self._features))
        self._keys, self._features, self._bytes = [], [], 0
        return name
