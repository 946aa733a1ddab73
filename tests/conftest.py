"""Fixtures for all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# Machines are noisy: no test fails for being slow.
settings.register_profile("mmdata", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("mmdata")

CORPUS = Path(__file__).resolve().parents[2] / "shared" / "corpus"


@pytest.fixture(scope="session")
def real_corpus() -> Path:
    """The folder of real pictures and narrations that lies beside the checkout in development; skips without it."""
    if not (CORPUS / "captions.parquet").exists():
        pytest.skip(f"no real corpus at {CORPUS}")
    return CORPUS
