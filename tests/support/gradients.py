"""Gradients of a model, to compare two ways of computing them."""

from __future__ import annotations

import torch


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    assert grads
    return grads


def same(ours: dict[str, torch.Tensor], others: dict[str, torch.Tensor], tolerance: float = 1e-5) -> None:
    assert ours.keys() == others.keys()
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, others[name], rtol=1e-3, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")


def open_gates(model: torch.nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if name.endswith(("gate", "gate_mlp")):
            parameter.data.fill_(0.5)
