"""Sticky rates: what the next release keeps of them, and what voids them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from upath import UPath

from mmdata.config import Select
from mmdata.errors import DataError
from mmdata.select.cuts import Cut, DensityBounds
from mmdata.select.rates import (
    Rates,
    keep_within_tolerance,
    near,
    rates_settings,
    read_lasting,
    read_rates,
    write_rates,
)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_a_rate_sticks_within_its_tolerance_and_never_beyond(wanted: float, before: float, tolerance: float) -> None:
    stuck = float(keep_within_tolerance(np.array([wanted]), np.array([before]), tolerance)[0])
    assert stuck in (wanted, before)
    assert near(stuck, wanted, tolerance)
    if tolerance == 0:
        assert stuck == wanted


def test_rates_come_back_to_the_last_bit_and_only_for_the_same_settings(tmp_path: Path) -> None:
    path = UPath(tmp_path / "rates.json")
    assert read_rates(path, "s") is None
    assert read_lasting(path, "s") == Rates("s")
    rates = Rates(
        "s", {"image+text": float(np.nextafter(0.1, 1))}, {"猫": 1 / 3}, {"c1 text": 2.5}, {"text": 1.5}, 0.1 + 0.2
    )
    write_rates(path, rates)
    assert read_rates(path, "s") == rates
    assert read_rates(path, "other") is None
    assert read_lasting(path, "other") == Rates("other", held_out=rates.held_out, cuts=rates.cuts)
    path.write_text('{"settings": "s"}')
    with pytest.raises(DataError, match=r"rates\.json"):
        read_rates(path, "s")


def test_settings_that_change_the_draws_or_the_quotas_void_the_rates() -> None:
    base = rates_settings(Select(), 0, "concepts")
    others = [
        rates_settings(Select(), 1, "concepts"),
        rates_settings(Select(), 0, "other concepts"),
        rates_settings(Select.model_validate({"balance": {"max_ratio": 2}}), 0, "concepts"),
        rates_settings(Select.model_validate({"oversample": {"max_repeats": 2}}), 0, "concepts"),
    ]
    assert base not in others
    assert rates_settings(Select.model_validate({"balance": {"tolerance": 0.5}}), 0, "concepts") == base
    assert rates_settings(Select.model_validate({"filter": {"min_words": 2}}), 0, "concepts") == base


def test_the_cuts_of_a_release_outlast_its_settings(tmp_path: Path) -> None:
    path = UPath(tmp_path / "rates.json")
    write_rates(path, Rates("s"))
    assert read_lasting(path, "s").cuts == {}
    assert "cuts" not in json.loads(path.read_text())
    cut = Cut(0.25, 2**63 + 1, 7, "a scorer")
    cuts = {"top_fraction": cut, "top:a+b": Cut(-1.5, 3, 4, "two scores", [[0.1, 0.2], [0.3, 0.4]])}
    bounds = DensityBounds("clusters", [0.1, 3.0], [2**64 - 1, 0], [1, 2], [0.5, 0.25])
    write_rates(path, Rates("s", cuts=cuts, density=bounds))
    assert json.loads(path.read_text())["cut"] == {"score": 0.25, "high": 2**63 + 1, "low": 7, "of": "a scorer"}
    rates = read_rates(path, "s")
    assert rates is not None
    assert rates.cuts == cuts
    assert read_lasting(path, "other") == Rates("other", cuts=cuts, density=bounds)
