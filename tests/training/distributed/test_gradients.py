"""Gradients are clipped together, and counted once."""

from __future__ import annotations

import pytest
import torch

from tests.support.tiny_run import alone
from training.distributed.gradients import clip_gradients


def parameters() -> list[torch.nn.Parameter]:
    made = [torch.nn.Parameter(torch.zeros(2)) for _ in range(3)]
    made[0].grad, made[1].grad = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 4.0])
    return made


@pytest.mark.parametrize(("most", "scale"), [(None, 1.0), (10.0, 1.0), (2.5, 0.5)])
def test_the_norm_is_that_before_and_all_gradients_shrink_alike(most: float | None, scale: float) -> None:
    trained = parameters()
    assert float(clip_gradients(trained, most, alone())) == pytest.approx(5.0)
    assert trained[0].grad is not None and trained[1].grad is not None
    assert trained[0].grad.tolist() == pytest.approx([3 * scale, 0])
    assert trained[1].grad.tolist() == pytest.approx([0, 4 * scale])
    assert trained[2].grad is None


def test_a_copy_of_tied_embeddings_is_not_counted_but_scaled() -> None:
    trained = parameters()
    trained[1].counted_elsewhere = True  # type: ignore[attr-defined]
    assert float(clip_gradients(trained, 1.5, alone())) == pytest.approx(3.0)
    assert trained[1].grad is not None
    assert trained[1].grad.tolist() == pytest.approx([0, 2])


def test_without_gradients_the_norm_is_zero() -> None:
    assert float(clip_gradients([], 1.0, alone())) == 0.0
