"""The scale of an fp16 loss, so that small gradients do not vanish (Micikevicius et al. 2018)."""

from __future__ import annotations

import torch
from torch import Tensor

FIRST_SCALE, MAX_SCALE = 2.0**16, 2.0**40
GROWTH_INTERVAL = 2000  # steps without an overflow, after which the scale doubles


class LossScale:
    """Halves at a step whose gradient overflows, and doubles after many that did not, as torch's GradScaler does.

    GradScaler looks at each process's own gradients. This looks at the norm of the whole gradient, which is the same on
    all processes, so all of them skip the same steps whatever the parallelism. The numbers stay on the device.

    Args: enabled: only fp16 needs it; otherwise losses and gradients are left alone.
    """

    def __init__(self, device: torch.device, enabled: bool) -> None:
        self.enabled = enabled
        self.scale = torch.full((), FIRST_SCALE if enabled else 1.0, device=device)
        self._clean_steps = torch.zeros((), dtype=torch.int64, device=device)
        self.skipped_in_a_row = torch.zeros((), dtype=torch.int64, device=device)

    def __call__(self, loss: Tensor) -> Tensor:
        return loss * self.scale if self.enabled else loss

    def update(self, norm: Tensor) -> None:
        """Adjust the scale after a step. Args: norm: of the whole gradient; the step is skipped if it is not finite."""
        if not self.enabled:
            return
        is_finite = norm.isfinite()
        self._clean_steps = (self._clean_steps + 1) * is_finite
        self.skipped_in_a_row = (self.skipped_in_a_row + 1) * ~is_finite
        grows = self._clean_steps == GROWTH_INTERVAL
        self._clean_steps = self._clean_steps * ~grows
        grown = torch.where(grows, self.scale * 2, self.scale).clamp_max(MAX_SCALE)
        self.scale = torch.where(is_finite, grown, self.scale / 2)

    def state(self) -> dict[str, float]:
        """What a checkpoint keeps, so that a resumed run goes on to the bit. Empty if there is no scale."""
        if not self.enabled:
            return {}
        numbers = {"scale": self.scale, "clean_steps": self._clean_steps, "skipped_in_a_row": self.skipped_in_a_row}
        return {name: number.item() for name, number in numbers.items()}

    def load(self, state: dict[str, float]) -> None:
        """Continue from a checkpoint's state; an empty one, of an older checkpoint or of another precision, is left."""
        if self.enabled and state:
            self.scale.fill_(state["scale"])
            self._clean_steps.fill_(int(state["clean_steps"]))
            self.skipped_in_a_row.fill_(int(state["skipped_in_a_row"]))
