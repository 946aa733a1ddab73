"""Seeds of the crash tests: `make test` tries the first one, `make test-all` tries CRASH_SEEDS of them."""

from __future__ import annotations

import os

import pytest

SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, int(os.environ.get("CRASH_SEEDS", "3"))))]
