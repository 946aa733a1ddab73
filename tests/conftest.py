"""Fixtures for all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

CORPUS = Path(__file__).resolve().parents[2] / "shared" / "corpus"


@pytest.fixture(scope="session")
def real_corpus() -> Path:
    """The folder of real pictures and narrations that lies beside the checkout in development; skips without it."""
    if not (CORPUS / "captions.parquet").exists():
        pytest.skip(f"no real corpus at {CORPUS}")
    return CORPUS
