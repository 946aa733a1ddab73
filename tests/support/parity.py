"""Run under torchrun: train a few steps in one of several ways, and write down what came out.

`python -m torch.distributed.run --nproc-per-node 2 -m tests.support.parity RELEASE CASES.json OUTPUT`
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from training.config import TrainConfig
from training.run import train


def main() -> None:
    release, cases, output = sys.argv[1], json.loads(Path(sys.argv[2]).read_text()), Path(sys.argv[3])
    torch.set_num_threads(1)
    for name, case in cases.items():
        config = TrainConfig.model_validate(case["config"])
        train(release, case["stages"], config, output / name)
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
