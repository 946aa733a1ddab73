"""Unit vectors of pictures and captions in half precision, some of which fit each other."""

from __future__ import annotations

import numpy as np

from mmdata.select.scores.bank import Bank


def unit_vectors(count: int, dim: int = 16, seed: int = 0) -> np.ndarray:
    """Random directions, float16 (count, dim)."""
    drawn = np.random.default_rng(seed).normal(size=(count, dim))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float16)


def pairs(count: int, dim: int = 16, seed: int = 0, noise: float = 0.8) -> tuple[np.ndarray, np.ndarray]:
    """Pictures, and captions that lie near them, float16 (count, dim) each."""
    pictures = unit_vectors(count, dim, seed)
    texts = pictures.astype(np.float64) + noise * unit_vectors(count, dim, seed + 1)
    return pictures, (texts / np.linalg.norm(texts, axis=1, keepdims=True)).astype(np.float16)


def bank_of(pictures: np.ndarray, texts: np.ndarray) -> Bank:
    """A full bank of these pairs."""
    return Bank(pictures, texts, tuple(f"{number:032x}" for number in range(len(pictures))), len(pictures))
