"""Quotas over modality signatures."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mmdata.config import Balance
from mmdata.errors import DataError
from mmdata.select.modality import capped_quotas, largest_remainder, mix_quotas, modality_rates

TOTALS = st.dictionaries(
    st.sampled_from(["image", "image+text", "text", "audio+text"]), st.integers(1, 400), min_size=1
)


def frame(totals: dict[str, int], seed: int = 0, weights: tuple[int, int] = (1, 1)) -> pl.DataFrame:
    signature = [name for name, total in totals.items() for _ in range(total)]
    rng = np.random.default_rng(seed)
    weight = rng.integers(weights[0], weights[1] + 1, len(signature))
    return pl.DataFrame(
        {"signature": signature, "draw": rng.random(len(signature)), "weight": weight},
        schema={"signature": pl.String, "draw": pl.Float64, "weight": pl.Int64},
    )


def kept(rows: pl.DataFrame, rates: dict[str, float]) -> dict[str, int]:
    stay = rows.filter(pl.col("draw") < pl.col("signature").replace_strict(rates, return_dtype=pl.Float64))
    return dict(stay.group_by("signature").agg(pl.col("weight").sum()).iter_rows())


@given(TOTALS, st.floats(1, 10), st.integers(0, 99))
def test_the_largest_is_at_most_max_ratio_times_the_smallest_and_quotas_are_exact(
    totals: dict[str, int], ratio: float, seed: int
) -> None:
    rows = frame(totals, seed)
    after = kept(rows, modality_rates(rows, Balance(max_ratio=ratio, tail_share=0)))
    assert after == capped_quotas(totals, ratio, 0)
    assert Fraction(max(after.values())) <= Fraction(repr(ratio)) * min(after.values())
    cap = int(Fraction(repr(ratio)) * min(totals.values()))
    assert all(after[name] == min(total, cap) for name, total in totals.items())


def test_a_signature_in_the_tail_does_not_set_the_cap() -> None:
    totals = {"image+text": 1000, "image": 100, "text+video": 3}
    assert capped_quotas(totals, 3.0, 0.01) == {"image+text": 300, "image": 100, "text+video": 3}
    assert capped_quotas(totals, 3.0, 0.0) == {"image+text": 9, "image": 9, "text+video": 3}


@given(TOTALS, st.lists(st.integers(1, 100), min_size=4, max_size=4))
def test_a_given_mix_is_met_exactly_by_the_largest_release_that_has_it(
    totals: dict[str, int], parts: list[int]
) -> None:
    asked = dict(zip(sorted(totals), parts, strict=False))
    mix = {name: part / sum(asked.values()) for name, part in asked.items()}
    assume(abs(sum(mix.values()) - 1) < 1e-6)
    try:
        quotas = mix_quotas(totals, mix, 0.0)
    except DataError:
        assert any(totals[name] < 1 / mix[name] for name in mix)
        return
    size = sum(quotas.values())
    assert all(quotas[name] <= totals[name] for name in totals)
    assert all(abs(quotas[name] - mix[name] * size) < 1 for name in mix)
    assert any(mix[name] * (size + 1) > totals[name] - 1e-6 for name in mix)
    rows = frame(totals)
    after = kept(rows, modality_rates(rows, Balance(mix=mix, tail_share=0)))
    assert {name: after.get(name, 0) for name in totals} == quotas


@given(st.dictionaries(st.text(min_size=1, max_size=3), st.integers(0, 50), min_size=1), st.integers(0, 1000))
def test_largest_remainder_sums_exactly_and_is_off_by_less_than_one(parts: dict[str, int], size: int) -> None:
    assume(sum(parts.values()))
    shares = {name: Fraction(part, sum(parts.values())) for name, part in parts.items()}
    quotas = largest_remainder(shares, size)
    assert sum(quotas.values()) == size
    assert all(abs(quotas[name] - share * size) < 1 for name, share in shares.items())


@pytest.mark.parametrize("totals", [{"image+text": 1000}, {"image+text": 1000, "audio+text": 2}])
def test_a_shortfall_names_the_modality(totals: dict[str, int]) -> None:
    with pytest.raises(DataError, match=r"30% `audio\+text`.*Remedy"):
        mix_quotas(totals, {"image+text": 0.7, "audio+text": 0.3}, 0.01)


@given(st.integers(0, 50), st.floats(1, 5))
def test_tokens_and_seconds_fill_their_quota_and_never_pass_it(seed: int, ratio: float) -> None:
    rows = frame({"image+text": 300, "text": 40}, seed, weights=(0, 50))
    totals = dict(rows.group_by("signature").agg(pl.col("weight").sum()).iter_rows())
    quotas = capped_quotas(totals, ratio, 0.01)
    after = kept(rows, modality_rates(rows, Balance(max_ratio=ratio, by="tokens")))
    for name, quota in quotas.items():
        assert quota - 50 < after[name] <= quota


def test_what_has_no_seconds_neither_sets_nor_feels_the_cap() -> None:
    rows = pl.concat([frame({"image+text": 100}, weights=(0, 0)), frame({"text+video": 50}, weights=(5, 5))])
    assert modality_rates(rows, Balance(by="seconds")) == {"image+text": 1.0, "text+video": 1.0}


@given(st.integers(0, 20), st.integers(1, 60))
def test_added_rows_change_no_earlier_decision_while_the_rate_sticks(seed: int, added: int) -> None:
    rows = frame({"image+text": 1000, "image": 100}, seed)
    before = modality_rates(rows, Balance(tolerance=0.1))
    more = pl.concat([rows, frame({"image+text": added}, seed + 1000)])
    after = modality_rates(more, Balance(tolerance=0.1), known=before)
    assert after == before
    assert abs(kept(more, after)["image+text"] - 300) <= 30


def test_a_rate_that_drifted_is_set_anew_and_exactly() -> None:
    rows = frame({"image+text": 1000, "image": 100})
    before = modality_rates(rows, Balance())
    more = pl.concat([rows, frame({"image+text": 1000}, seed=1)])
    assert kept(more, modality_rates(more, Balance(tolerance=0.1), known=before))["image+text"] == 300
    exact = modality_rates(rows, Balance(tolerance=0), known=before)
    assert exact == before


def test_nothing_and_one_row() -> None:
    assert modality_rates(frame({}), Balance()) == {}
    assert modality_rates(frame({"text": 1}), Balance()) == {"text": 1.0}
    assert modality_rates(frame({"text": 5, "image": 1}), Balance(max_ratio=None)) == {"image": 1.0, "text": 1.0}


def test_a_mix_by_seconds_cannot_ask_for_what_has_none() -> None:
    rows = pl.concat([frame({"image+text": 100}, weights=(0, 0)), frame({"text+video": 50}, weights=(5, 5))])
    with pytest.raises(DataError, match=r"`image\+text`, whose samples have no seconds.*leave it out"):
        modality_rates(rows, Balance(by="seconds", mix={"image+text": 0.5, "text+video": 0.5}))
    assert modality_rates(rows, Balance(by="seconds", mix={"text+video": 1.0})) == {
        "image+text": 1.0,
        "text+video": 1.0,
    }
