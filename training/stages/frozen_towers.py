"""Fills the tables of cached features: each frozen tower runs once on each medium that a stage is going to read."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DataLoader

from mmdata.errors import UserError
from training.config import TrainConfig
from training.data.batch_readers import PairReader, RowReader
from training.data.feature_cache import CachedFeatures, FeatureTable
from training.data.missing_features import (
    Kind,
    Missing,
    MissingFeatures,
    MissingMedium,
    plan_features,
    samples_read,
)
from training.distributed.gradients import Autocast
from training.distributed.process_mesh import Mesh
from training.model.encoders import DualEncoder
from training.model.towers import Tower
from training.stages.stage_model import StageModel

TOWER_BATCH = 32  # media that go through a tower at once
PART_BYTES = 64 << 20  # of features that are held in memory before they are written


@dataclass(frozen=True, slots=True)
class FrozenTower:
    """A tower, or the body of one, that a stage does not train."""

    compute: Callable[[Any], Tensor]  # decoded media (stacked) or texts -> features M,…
    table: FeatureTable
    blank: Any  # a medium or text, for the size of its features


def frozen_towers(built: StageModel, config: TrainConfig, folder: Path) -> dict[Kind, FrozenTower]:
    """The frozen towers of a stage by kind of medium, each with its table in the folder.

    Empty if `data.cache_features` is off. Towers that stage `align` trains are not in it.

    Raises UserError: a picture looks different in each epoch, so that its features cannot be kept.
    """
    if not config.data.cache_features:
        return {}
    model: Any = built.model
    precision = config.parallel.precision

    blanks = {"picture": torch.zeros(3, *model.vision.preprocess.size, dtype=torch.uint8), "text": ""}
    if model.audio is not None:
        blanks["sound"] = torch.zeros(model.audio.samples)

    def frozen(kind: Kind, compute: Callable[[Any], Tensor], tower: Any, *how: object) -> FrozenTower:
        table = FeatureTable(folder / f"{kind}-{_fingerprint(tower, kind, precision, *how)}")
        return FrozenTower(compute, table, blanks[kind])

    towers: dict[Kind, FrozenTower] = {}
    if isinstance(model, DualEncoder):
        if model.vision.body_frozen or model.text.body_frozen:
            _check_tokens_are_not_read(config)
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


def _check_tokens_are_not_read(config: TrainConfig) -> None:
    if weights := [
        name for name in ("masked_weight", "masked_text_weight", "masked_sound_weight") if getattr(config.align, name)
    ]:
        raise UserError(
            f"data.cache_features: align.{weights[0]} reads the tokens of pictures and captions in each step, and the "
            f"cache of a frozen tower keeps one vector. Remedy: align.{weights[0]} = 0, or data.cache_features = false."
        )


def _check_pictures_stay(config: TrainConfig) -> None:
    if config.align.crop_scale < 1:
        raise UserError(
            f"data.cache_features: align.crop_scale {config.align.crop_scale:g} crops a picture anew in each epoch, so "
            "the features of a frozen tower change. Remedy: align.crop_scale = 1.0, or data.cache_features = false."
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
    tell: Callable[[dict[str, float]], None] = lambda plan: None,
) -> dict[str, float]:
    """Compute the features that are missing. Each rank computes its share of the samples.

    Args:
        wanted: readers, and the number of samples that each is going to read, in its order.
        tell: called before it begins, if features are missing: about how many (`media`), their `bytes`, and the
            `free_bytes` of the disk.

    Returns: `media` computed on this rank, `bytes` of all tables, and `seconds`.
    Raises UserError: the disk has too little space, or the ranks do not see each other's files.
    """
    begun = time.monotonic()
    built.model.eval()
    tables = {kind: tower.table for kind, tower in towers.items()}
    read = [(reader, samples_read(reader, samples)) for reader, samples in wanted]
    sizes = {kind: _run(tower, [tower.blank], mesh.device, autocast).numel() * 2 for kind, tower in towers.items()}
    folder = next(iter(tables.values())).folder.parent
    plan = plan_features([MissingFeatures(reader, tables, samples) for reader, samples in read], sizes, folder)
    if plan.media:
        tell(plan.told())
        plan.check_disk()
    mesh.barrier()  # all ranks plan before the first one writes
    rank, world = _rank_of_all(mesh)
    names: list[str] = []
    media = 0
    for reader, samples in read:
        missing = MissingFeatures(reader, tables, samples[rank::world])
        loader: DataLoader[Missing] = DataLoader(missing, batch_size=None, num_workers=min(workers, len(missing)))
        writers = {kind: _PartWriter(tower, mesh.device, autocast) for kind, tower in towers.items()}
        for found in loader:
            for kind, entries in found.items():
                names += writers[kind].add(entries)
        for writer in writers.values():
            names += writer.flush()
            media += writer.count
        for table in tables.values():
            table.reopen()
    _check_shared(towers, names, mesh)
    size = sum(table.size_bytes() for table in tables.values())
    return {"media": float(media), "bytes": float(size), "seconds": time.monotonic() - begun}


def _rank_of_all(mesh: Mesh) -> tuple[int, int]:
    """This process's number, and the number of processes: those that split a model compute features side by side."""
    rank, world = 0, 1
    for name in ("pp", "dp", "tp"):
        rank, world = rank * mesh.size(name) + mesh.rank(name), world * mesh.size(name)
    return rank, world


def _check_shared(towers: dict[Kind, FrozenTower], names: list[str], mesh: Mesh) -> None:
    """Wait for all ranks, and check that their parts are seen here."""
    if not mesh.groups:
        return
    everywhere: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everywhere, names)
    for tower in towers.values():
        tower.table.reopen()
    seen = {name for tower in towers.values() for name in tower.table.parts()}
    if not {name for of_rank in everywhere for name in of_rank} <= seen:
        raise UserError(
            "data.cache_features: the processes do not see each other's files. "
            "Remedy: an --output on a disk that they share, or data.cache_features = false."
        )


def _run(tower: FrozenTower, media: list[Any], device: torch.device, autocast: Autocast) -> Tensor:
    """Features of media or texts: float16 M,… on the CPU."""
    inputs = media if isinstance(media[0], str) else torch.stack(media).to(device)
    with autocast():
        return tower.compute(inputs).to(torch.float16).cpu()


class _PartWriter:
    """Runs a tower on media as they come, and publishes their features in parts of bounded size and of one release."""

    def __init__(self, tower: FrozenTower, device: torch.device, autocast: Autocast) -> None:
        self._tower, self._device, self._autocast = tower, device, autocast
        self._waiting: list[MissingMedium] = []
        self._keys: list[bytes] = []
        self._features: list[Tensor] = []
        self._release_id: str | None = None  # of all that is held
        self._bytes = 0
        self._seen: set[bytes] = set()

    @property
    def count(self) -> int:
        """Media that were computed."""
        return len(self._seen)

    def add(self, entries: Sequence[MissingMedium]) -> list[str]:
        """Returns: the names of the parts that were published."""
        names = []
        for entry in entries:
            if entry.key in self._seen:
                continue
            if entry.release_id != self._release_id:
                names += self.flush()
                self._release_id = entry.release_id
            self._seen.add(entry.key)
            self._waiting.append(entry)
            if len(self._waiting) >= TOWER_BATCH:
                self._compute()
                if self._bytes >= PART_BYTES:
                    names.append(self._publish())
        return names

    def flush(self) -> list[str]:
        """Publish the rest."""
        if self._waiting:
            self._compute()
        return [self._publish()] if self._keys else []

    def _compute(self) -> None:
        batch, self._waiting = self._waiting, []
        features = _run(self._tower, [entry.medium for entry in batch], self._device, self._autocast)
        self._keys += [entry.key for entry in batch]
        self._features.append(features)
        self._bytes += features.numel() * features.element_size()

    def _publish(self) -> str:
        name = self._tower.table.add(self._keys, torch.cat(self._features), self._release_id)
        self._keys, self._features, self._bytes = [], [], 0
        return name
