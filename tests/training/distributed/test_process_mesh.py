"""Processes are arranged, and their rows gathered."""

from __future__ import annotations

import pytest
import torch.distributed as dist

from mmdata.errors import UserError
from tests.support.tiny_run import settings
from training.distributed.process_mesh import join_processes


def test_processes_that_do_not_divide_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(UserError, match="does not divide 3"):
        join_processes(settings(parallel={"tp": 2}).parallel, "cpu")


def test_one_process_of_torchrun_is_a_group_for_fsdp2_and_for_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that sharding can be tried on a machine with one GPU."""
    launched = {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    for name, value in launched.items():
        monkeypatch.setenv(name, value)
    assert join_processes(settings().parallel, "cpu").groups == {}
    try:
        mesh = join_processes(settings(parallel={"strategy": "fsdp2"}).parallel, "cpu")
        assert (mesh.size("dp"), mesh.rank("dp"), mesh.mesh["dp"].size()) == (1, 0, 1)
    finally:
        dist.destroy_process_group()
    monkeypatch.delenv("LOCAL_RANK")
    assert join_processes(settings(parallel={"strategy": "fsdp2"}).parallel, "cpu").groups == {}
