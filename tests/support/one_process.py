"""A process group of this process alone, for wrappers that need one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist

from training.distributed.process_mesh import Mesh


@contextmanager
def one_process(folder: Path) -> Iterator[Mesh]:
    """The mesh of one process, on the CPU. Args: folder: an empty one, where processes would meet."""
    names = ("pp", "dp", "tp")
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=0, world_size=1)
    try:
        mesh = dist.init_device_mesh("cpu", (1, 1, 1), mesh_dim_names=names)
        yield Mesh(torch.device("cpu"), {name: mesh.get_group(name) for name in names}, mesh)
    finally:
        dist.destroy_process_group()
