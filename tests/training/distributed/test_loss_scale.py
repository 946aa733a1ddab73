"""The loss scale follows torch's GradScaler, and comes back from its state."""

from __future__ import annotations

import torch
from torch import nn

from training.distributed.loss_scale import FIRST_SCALE, GROWTH_INTERVAL, MAX_SCALE, LossScale

CPU = torch.device("cpu")
GOOD, BAD = torch.tensor(1.0), torch.tensor(torch.inf)


def test_it_halves_and_doubles_where_the_grad_scaler_does() -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=FIRST_SCALE, growth_interval=GROWTH_INTERVAL)
    weight = nn.Parameter(torch.ones(()))
    optimizer = torch.optim.SGD([weight], 0.0)
    ours = LossScale(CPU, True)
    for norm in [BAD, BAD, *[GOOD] * (GROWTH_INTERVAL - 1), BAD, *[GOOD] * (GROWTH_INTERVAL + 2)]:
        scaler.scale(weight * 1).backward()
        assert weight.grad is not None
        weight.grad.mul_(norm)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        ours.update(norm)
        assert float(ours.scale) == scaler.get_scale()
    assert float(ours(torch.tensor(3.0))) == 3 * scaler.get_scale() == 3 * FIRST_SCALE / 4
    assert int(ours.skipped_in_a_row) == 0


def test_it_does_not_grow_without_end() -> None:
    scale = LossScale(CPU, True)
    scale.load({"scale": MAX_SCALE, "clean_steps": GROWTH_INTERVAL - 1, "skipped_in_a_row": 0})
    scale.update(GOOD)
    assert float(scale.scale) == MAX_SCALE


def test_a_state_continues_where_it_was_taken() -> None:
    first, second = LossScale(CPU, True), LossScale(CPU, True)
    for norm in (GOOD, BAD, BAD):
        first.update(norm)
    second.load(first.state())
    assert second.state() == first.state() == {"scale": FIRST_SCALE / 4, "clean_steps": 0, "skipped_in_a_row": 2}
    second.load({})
    assert second.state() == first.state(), "an older checkpoint has none"


def test_without_fp16_nothing_is_scaled_or_kept() -> None:
    scale = LossScale(CPU, False)
    scale.update(BAD)
    assert scale.state() == {}
    assert float(scale(torch.tensor(3.0))) == 3.0
