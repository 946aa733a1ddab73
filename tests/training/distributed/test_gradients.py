"""Gradients are clipped together, and counted once."""

from __future__ import annotations

import pytest
import torch

from tests.support.tiny_run import alone
from training.distributed import gradients
from training.distributed.gradients import average_gradients, clip_gradients
from training.distributed.process_mesh import Mesh


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


def test_gradients_of_a_scaled_loss_are_clipped_as_if_it_had_not_been_scaled() -> None:
    plain, scaled = parameters(), parameters()
    for parameter in scaled[:2]:
        parameter.grad = parameter.grad * 1024  # type: ignore[operator]
    for most in (None, 2.5):
        norms = clip_gradients(plain, most, alone()), clip_gradients(scaled, most, alone(), torch.tensor(1024.0))
        assert norms[0] == norms[1]
        for parameter, other in zip(plain[:2], scaled[:2], strict=True):
            assert parameter.grad is not None and other.grad is not None
            assert torch.equal(parameter.grad, other.grad)
            other.grad *= 1024


def test_a_gradient_that_overflowed_has_no_finite_norm() -> None:
    trained = parameters()
    assert trained[0].grad is not None
    trained[0].grad[0] = torch.inf
    assert not clip_gradients(trained, 1.0, alone(), torch.tensor(2.0)).isfinite()


class Four(Mesh):
    """The arrangement of four data-parallel processes."""

    def size(self, name: str) -> int:
        return 4 if name == "dp" else 1


def test_gradients_are_averaged_in_a_few_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    sums: list[int] = []

    def all_reduce(joined: torch.Tensor, group: object) -> None:
        sums.append(joined.numel())
        joined *= 2

    monkeypatch.setattr(gradients.dist, "all_reduce", all_reduce)
    monkeypatch.setattr(gradients, "BUCKET_BYTES", 40)
    trained = [torch.nn.Parameter(torch.zeros(2, 3)) for _ in range(5)] + [torch.nn.Parameter(torch.zeros(1))]
    for number, parameter in enumerate(trained[:5]):
        parameter.grad = torch.full_like(parameter, float(number))
    average_gradients(trained, Four(torch.device("cpu"), {}))
    assert sums == [12, 12, 6]
    assert [p.grad.unique().tolist() for p in trained[:5] if p.grad is not None] == [[n / 2] for n in range(5)]
    assert trained[5].grad is None
