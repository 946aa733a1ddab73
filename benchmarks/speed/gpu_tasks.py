"""The rows of the GPU table: what is measured, at which size, and how long it may take."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from benchmarks.speed.sizes import HALF_BILLION_LLM, SMALL_LLM, TINY_CLIP, TINY_LLM, Size

SAMPLES = 8192  # of the release that all rows read
TINY_SAMPLES = 64
Side = Literal["ours", "open_clip", "Trainer", "smoke"]


@dataclass(frozen=True, slots=True)
class Task:
    """A row.

    Args:
        side: who trains; `smoke`: we, a few steps, only to see that it runs.
        settings: of a smoke test, over those of the size: dotted key -> value.
        processes: of torchrun; 0: a process of its own.
        limit_s: seconds after which the row is ended.
        missing: why the row cannot be run on this machine.
    """

    name: str
    side: Side
    stage: str
    size: Size
    settings: dict[str, Any] = field(default_factory=dict)
    processes: int = 0
    limit_s: float = 60.0
    missing: str | None = None

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, path: str) -> Task:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
        return cls(**{**values, "size": Size(**values["size"])})


def tasks(device: str, tiny: bool, workers: int, gpus: int) -> list[Task]:
    """All rows, the most telling first, because the time is limited.

    Args: gpus: of this machine; NCCL takes one process for each.
    """
    if tiny:
        align = Size(device, TINY_CLIP, TINY_LLM, TINY_SAMPLES, 16, 16, 1, 2, 0, peak_tflops=0.1)
        sizes = {"align tiny towers": align}
        joint, small = replace(align, pack_length=512), replace(align, pack_length=512)
    else:
        align = Size(device, None, {}, SAMPLES, 2048, 2048, 5, 20, workers, compile=True)
        large = replace(align, model="ViT-L-14", batch=256, peer_micro=256)
        sizes = {"align ViT-B/32": align, "align ViT-L/14": large}
        joint = Size(device, None, HALF_BILLION_LLM, SAMPLES, 512, 16, 5, 20, workers, 4096, compile=True)
        small = Size(device, TINY_CLIP, SMALL_LLM, SAMPLES, 32, 32, 1, 3, 2, 1024)
    ours = [Task(f"{name}, {size.batch} a step", "ours", "align", size, limit_s=110) for name, size in sizes.items()]
    peers = [replace(task, side="open_clip", limit_s=80) for task in ours]
    tokens = Task(
        f"joint {'tiny' if tiny else '0.5B'}, {joint.batch} samples a step", "ours", "joint", joint, limit_s=110
    )
    trainer = replace(tokens, side="Trainer", size=replace(joint, warm=1, steps=2 if tiny else 6), limit_s=80)
    return [ours[0], tokens, *ours[1:], peers[0], trainer, *_smoke_tests(device, small, gpus), *peers[1:]]


def _smoke_tests(device: str, size: Size, gpus: int) -> list[Task]:
    """A few steps of each: sharding, pipeline, the KL term, and the attention kernels."""
    kernels = ("flex_attention", "flash_attention_2") if device == "cuda" else ("eager",)
    sharded = 2 if gpus >= 2 else 1
    is_single = device == "cuda" and gpus < 2
    one_gpu = "not run: NCCL takes one process a GPU, and there is one GPU" if is_single else None
    smoke = Task("", "smoke", "joint", size, limit_s=60 if device == "cuda" else 240)
    fsdp2 = {"parallel.strategy": "fsdp2"}
    return [
        replace(smoke, name=f"FSDP2 on {sharded} process(es)", processes=sharded, settings=fsdp2),
        replace(smoke, name="pipeline on 2 processes", processes=2, settings={"parallel.pp": 2}, missing=one_gpu),
        replace(smoke, name="KL term", settings={"joint.kl_weight": 0.1}),
        *(replace(smoke, name=f"attention {kernel}", settings={"model.llm.attention": kernel}) for kernel in kernels),
    ]
