"""The processes of a run: how they are arranged, and sums and gathers over them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, Partial, Shard

from mmdata.errors import UserError
from training.config import Parallel


@dataclass(frozen=True)
class Mesh:
    """The arrangement of processes, seen from this one."""

    device: torch.device  # of this process
    groups: dict[str, Any]  # process groups by dimension (pp, dp, tp); empty on one process
    mesh: Any = None  # torch's device mesh; None on one process

    def size(self, name: str) -> int:
        return dist.get_world_size(self.groups[name]) if self.groups else 1

    def rank(self, name: str) -> int:
        return dist.get_rank(self.groups[name]) if self.groups else 0

    @property
    def dp_group(self) -> Any:
        return self.groups.get("dp")

    @property
    def world_size(self) -> int:
        return dist.get_world_size() if self.groups else 1

    @property
    def global_rank(self) -> int:
        return dist.get_rank() if self.groups else 0

    @property
    def is_main(self) -> bool:
        return not dist.is_initialized() or dist.get_rank() == 0

    def sum(self, values: Tensor) -> Tensor:
        """Sum over the data-parallel ranks, in place."""
        if self.size("dp") > 1:
            dist.all_reduce(values, group=self.dp_group)
        return values

    def sum_on_host(self, value: float, name: str | None = None) -> float:
        """Sum a number of this process over the processes of a dimension, or over all, without using the device.

        Nobody waits for the device: NCCL would queue the sum behind the whole step.
        """
        if not self.groups or (name is not None and self.size(name) == 1):
            return value
        total = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(total, group=self.groups[name] if name is not None else None)
        return float(total)

    def gather(self, local_BD: Tensor) -> Tensor:
        """Rows of all data-parallel ranks, in the order of ranks; all ranks have equally many.

        The gradient of a row flows back to the rank that it came from, summed over the ranks that used it.
        """
        if self.size("dp") == 1:
            return local_BD
        sharded = DTensor.from_local(local_BD.contiguous(), self.mesh["dp"], [Shard(0)], run_check=False)
        return sharded.full_tensor(grad_placements=[Partial()])

    def gather_objects(self, value: Any) -> list[Any]:
        """A picklable value of each data-parallel rank."""
        if self.size("dp") == 1:
            return [value]
        values: list[Any] = [None] * self.size("dp")
        dist.all_gather_object(values, value, group=self.dp_group)
        return values

    def barrier(self) -> None:
        if self.groups:
            dist.barrier()


def join_processes(parallel: Parallel, device: str) -> Mesh:
    """Join the processes that torchrun launched, or stay alone. With `fsdp2`, one process of torchrun is a group too.

    Args: device: cpu, cuda, or auto (cuda where there is one).
    Raises UserError: tp x pp does not divide the number of processes.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    kind = device if device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
    if world % (parallel.tp * parallel.pp):
        raise UserError(
            f"parallel: tp {parallel.tp} x pp {parallel.pp} does not divide {world} process(es). "
            "Remedy: start a multiple of it with `torchrun --nproc-per-node N -m training …`."
        )
    is_sharded_alone = parallel.strategy == "fsdp2" and "LOCAL_RANK" in os.environ  # torchrun with one process
    if world == 1 and not is_sharded_alone:
        return Mesh(torch.device(kind), {})
    if kind.startswith("cuda"):
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        kind = "cuda"
    if not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo")
    names = ("pp", "dp", "tp")
    shape = (parallel.pp, world // (parallel.tp * parallel.pp), parallel.tp)
    mesh = dist.init_device_mesh(kind, shape, mesh_dim_names=names)
    this_device = torch.device(kind, torch.cuda.current_device()) if kind == "cuda" else torch.device(kind)
    return Mesh(this_device, {name: mesh.get_group(name) for name in names}, mesh)
