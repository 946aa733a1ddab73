"""One row of the GPU table: `python -m benchmarks.speed.gpu_row TASK.json WORKSPACE OUT.json`."""

from __future__ import annotations

import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.speed.gpu_tasks import Task
from benchmarks.speed.ours import measure_ours, our_config
from benchmarks.speed.peers import measure_open_clip, measure_trainer
from benchmarks.speed.sizes import Speed, picture_tokens


def main() -> None:
    """Measure a task and write its Speed."""
    task, workspace, out = Task.read(sys.argv[1]), sys.argv[2], sys.argv[3]
    if task.side == "ours":
        measure_ours(workspace, task.stage, task.size, out)
    elif task.side == "open_clip":
        measure_open_clip(workspace, task.size, out)
    elif task.side == "Trainer":
        measure_trainer(workspace, task.size, picture_tokens(task.size), out)
    else:
        smoke(task, workspace, out)


def smoke(task: Task, workspace: str, out: str) -> None:
    """Train a few steps with the task's settings; its work is the steps. Fails if the loss is not a number."""
    from training.config import TrainConfig
    from training.config_file import with_setting

    settings: dict[str, Any] = our_config(task.size).model_dump(mode="json")
    for key, value in task.settings.items():
        settings = with_setting(settings, key.split("."), value)
    config = TrainConfig.model_validate(settings)
    import torch.distributed as dist

    from training.run import train

    with tempfile.TemporaryDirectory(prefix="mmdata-smoke-") as own:
        folder = [own]
        if task.processes > 1:  # all ranks write to the folder of the first
            from training.distributed.process_mesh import join_processes

            join_processes(config.parallel, config.device)
            dist.broadcast_object_list(folder)
        begun = time.monotonic()
        (result,) = train(workspace, [task.stage], config, Path(folder[0]))  # type: ignore[list-item]
        assert math.isfinite(result.last_loss), f"the loss is {result.last_loss}"
        is_main = not dist.is_initialized() or dist.get_rank() == 0
        if is_main:
            Speed(result.steps, time.monotonic() - begun).write(out)
        if dist.is_initialized():
            dist.barrier()
            dist.destroy_process_group()


if __name__ == "__main__":
    main()
