"""Quotas over modality signatures."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from mmdata.config import Balance, Oversample
from mmdata.select.mix import targets
from mmdata.select.modality import capped_quotas, signature_rates
from mmdata.select.rates import Rates

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


def rates_of(rows: pl.DataFrame, balance: Balance, known: dict[str, float] | None = None) -> dict[str, float]:
    return signature_rates(rows, balance, Oversample(), None if known is None else Rates("s", known)).rates


def kept(rows: pl.DataFrame, rates: dict[str, float]) -> dict[str, int]:
    stay = rows.filter(pl.col("draw") < pl.col("signature").replace_strict(rates, return_dtype=pl.Float64))
    return dict(stay.group_by("signature").agg(pl.col("weight").sum()).iter_rows())


@given(TOTALS, st.floats(1, 10), st.integers(0, 99))
def test_the_largest_is_at_most_max_ratio_times_the_smallest_and_quotas_are_exact(
    totals: dict[str, int], ratio: float, seed: int
) -> None:
    rows = frame(totals, seed)
    after = kept(rows, rates_of(rows, Balance(max_ratio=ratio, tail_share=0)))
    assert after == capped_quotas(totals, ratio, 0)
    assert Fraction(max(after.values())) <= Fraction(repr(ratio)) * min(after.values())
    cap = int(Fraction(repr(ratio)) * min(totals.values()))
    assert all(after[name] == min(total, cap) for name, total in totals.items())


def test_a_signature_in_the_tail_does_not_set_the_cap() -> None:
    totals = {"image+text": 1000, "image": 100, "text+video": 3}
    assert capped_quotas(totals, 3.0, 0.01) == {"image+text": 300, "image": 100, "text+video": 3}
    assert capped_quotas(totals, 3.0, 0.0) == {"image+text": 9, "image": 9, "text+video": 3}


@given(TOTALS, st.lists(st.integers(1, 100), min_size=4, max_size=4), st.integers(1, 6))
def test_what_a_mix_keeps_of_each_signature_is_kept_exactly(
    totals: dict[str, int], parts: list[int], repeats: int
) -> None:
    asked = dict(zip(sorted(totals), parts, strict=False))
    balance = Balance(mix={name: part / sum(asked.values()) for name, part in asked.items()}, max_loss=0.6)
    oversample = Oversample(max_repeats=repeats)
    rows = frame(totals)
    found = signature_rates(rows, balance, oversample)
    wanted = targets(totals, balance, oversample)
    after = kept(rows, found.rates)
    assert {name: after.get(name, 0) for name in totals} == {name: target.kept for name, target in wanted.items()}
    assert found.factors == {name: target.factor for name, target in wanted.items()}


@given(st.integers(0, 50), st.floats(1, 5))
def test_tokens_and_seconds_fill_their_quota_and_never_pass_it(seed: int, ratio: float) -> None:
    rows = frame({"image+text": 300, "text": 40}, seed, weights=(0, 50))
    totals = dict(rows.group_by("signature").agg(pl.col("weight").sum()).iter_rows())
    quotas = capped_quotas(totals, ratio, 0.01)
    after = kept(rows, rates_of(rows, Balance(max_ratio=ratio, by="tokens")))
    for name, quota in quotas.items():
        assert quota - 50 < after[name] <= quota


def test_what_has_no_seconds_neither_sets_nor_feels_the_cap() -> None:
    rows = pl.concat([frame({"image+text": 100}, weights=(0, 0)), frame({"text+video": 50}, weights=(5, 5))])
    assert rates_of(rows, Balance(max_ratio=3, by="seconds")) == {"image+text": 1.0, "text+video": 1.0}


@given(st.integers(0, 20), st.integers(1, 60))
def test_added_rows_change_no_earlier_decision_while_the_rate_sticks(seed: int, added: int) -> None:
    rows = frame({"image+text": 1000, "image": 100}, seed)
    before = rates_of(rows, Balance(max_ratio=3, tolerance=0.1))
    more = pl.concat([rows, frame({"image+text": added}, seed + 1000)])
    after = rates_of(more, Balance(max_ratio=3, tolerance=0.1), known=before)
    assert after == before
    assert abs(kept(more, after)["image+text"] - 300) <= 30


def test_a_rate_that_drifted_is_set_anew_and_exactly() -> None:
    rows = frame({"image+text": 1000, "image": 100})
    before = rates_of(rows, Balance(max_ratio=3))
    more = pl.concat([rows, frame({"image+text": 1000}, seed=1)])
    assert kept(more, rates_of(more, Balance(max_ratio=3, tolerance=0.1), known=before))["image+text"] == 300
    exact = rates_of(rows, Balance(max_ratio=3, tolerance=0), known=before)
    assert exact == before


def test_nothing_and_one_row() -> None:
    assert rates_of(frame({}), Balance()) == {}
    assert rates_of(frame({"text": 1}), Balance()) == {"text": 1.0}
    assert rates_of(frame({"text": 5, "image": 1}), Balance(max_ratio=None)) == {"image": 1.0, "text": 1.0}


@given(st.integers(0, 20), st.integers(1, 60))
def test_a_mix_of_the_last_release_stays_while_it_is_within_the_tolerance(seed: int, added: int) -> None:
    balance = Balance(mix={"image+text": 0.5, "text": 0.5}, max_loss=1.0)
    rows = frame({"image+text": 1000, "text": 100}, seed)
    before = signature_rates(rows, balance, Oversample())
    assert before.factors == {"image+text": 1.0, "text": 4.0}
    parent = Rates("s", before.rates, signature=before.factors)
    more = pl.concat([rows, frame({"image+text": added}, seed + 1000)])
    after = signature_rates(more, balance, Oversample(), parent)
    assert (after.rates, after.factors) == (before.rates, before.factors)
    twice = signature_rates(pl.concat([rows, frame({"text": 100}, seed + 1000)]), balance, Oversample(), parent)
    assert twice.rates["image+text"] > 1.5 * before.rates["image+text"]


@given(st.permutations(range(60)))
def test_the_order_of_rows_does_not_matter(order: list[int]) -> None:
    rows = frame({"image+text": 50, "text": 10})
    balance = Balance(mix={"image+text": 0.3, "text": 0.7}, max_loss=0.5)
    assert signature_rates(rows[order], balance, Oversample()) == signature_rates(rows, balance, Oversample())
