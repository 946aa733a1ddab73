"""Embeddings of held-out pairs, kept in main memory batch by batch while the pairs themselves are let go."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor

from training.data.batch_types import PairBatch
from training.distributed.process_mesh import Mesh
from training.metrics.retrieval import retrieval_by_kind
from training.stages.align import FEATURES


class HeldOutPairs:
    """The embeddings of the pairs of all data-parallel ranks. A million pairs of 512 numbers take 4 GB."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._features: defaultdict[str, list[Tensor]] = defaultdict(list)
        self._groups: list[Tensor] = []
        self._uids: list[str] = []  # of this rank's samples with a picture
        self._visual: list[Tensor] = []  # and what they look like

    def add(self, output: dict[str, Tensor], batch: PairBatch) -> None:
        """Keep the embeddings of this rank's share of a batch. Args: output: of the model."""
        is_real = self._mesh.gather(batch.weight) > 0
        for name in FEATURES:
            if name in output:
                self._features[name].append(self._mesh.gather(output[name])[is_real].cpu())
        self._groups.append(self._mesh.gather(batch.group)[is_real].cpu())
        shown = batch.picture_of.unique()
        self._uids += [batch.uids[at] for at in shown.tolist()]
        self._visual.append(output["visual"][shown].cpu())

    def scores(self) -> dict[str, float]:
        """`retrieval_by_kind` of all of them, computed on the mesh's device."""
        device = self._mesh.device
        features = {name: torch.cat(parts).to(device) for name, parts in self._features.items()}
        groups = torch.cat(self._groups).to(device)
        return retrieval_by_kind(features["text"], features["visual"], features.get("audio"), groups)

    def pictures(self) -> tuple[list[str], Tensor]:
        """Uids of this rank's samples with a picture or frames, and their embeddings N,D."""
        return self._uids, torch.cat(self._visual)
