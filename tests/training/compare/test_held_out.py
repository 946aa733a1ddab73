"""What is held out is true, drawn by hash, and has no near duplicate in the pool."""

from __future__ import annotations

import hashlib

import numpy as np
import polars as pl

from benchmarks.worth.held_out import Facts, hold_out


def facts(n: int = 400, knows_truth: bool = True) -> Facts:
    """Every fifth sample is a copy of the one before, each time in another way; every seventh caption is false."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(n, 16)).astype(np.float32)
    names = [f"{at:032x}" for at in range(n)]
    records = []
    hashes = rng.integers(0, 2**63, n, dtype=np.uint64)
    sha = [hashlib.sha256(name.encode()).hexdigest() for name in names]
    urls = [f"https://example.org/{at}" for at in range(n)]
    originals: list[str | None] = [None] * n
    for turn, at in enumerate(range(4, n, 5)):
        match turn % 5:
            case 0:
                vectors[at] = vectors[at - 1] * 1.01
            case 1:
                hashes[at] = hashes[at - 1] ^ np.uint64(0b1011)
            case 2:
                sha[at] = sha[at - 1]
            case 3:
                urls[at] = urls[at - 1]
            case _:
                originals[at] = names[at - 1]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for at in range(n):
        true = (at % 7 != 0) if knows_truth else None
        records.append((names[at], urls[at], f"caption {at}", sha[at], int(hashes[at]), true, originals[at], "c"))
    schema = {"uid": pl.String, "url": pl.String, "caption": pl.String, "sha256": pl.String, "phash": pl.UInt64}
    schema |= {"true_pair": pl.Boolean, "original": pl.String, "concept": pl.String}
    return Facts(pl.DataFrame(records, schema=schema, orient="row"), vectors, knows_truth)


def partner(at: int) -> int | None:
    """The sample that is nearly the same."""
    return at - 1 if at % 5 == 4 else at + 1 if at % 5 == 3 else None


def test_nothing_nearly_the_same_as_a_held_out_picture_is_trained_on() -> None:
    found = hold_out(facts(), 0.3, 1000, seed=0, bits=4, eps=0.03)
    chosen, pool = set(found.chosen.tolist()), set(found.pool.tolist())
    assert len(chosen) > 60
    assert not chosen & pool
    partners = {partner(at) for at in chosen} - {None}
    assert partners
    assert not partners & pool
    assert not partners & chosen, "no two held-out pictures are nearly the same"
    assert chosen | partners | pool == set(range(400)), "all else is trained on"


def test_only_true_captions_are_evaluated_on_where_the_truth_is_known() -> None:
    assert (hold_out(facts(), 0.5, 1000, 0, 4, 0.03).chosen % 7 != 0).all()
    assert (hold_out(facts(knows_truth=False), 0.5, 1000, 0, 4, 0.03).chosen % 7 == 0).any()


def test_the_draw_depends_on_the_picture_and_the_seed_alone() -> None:
    whole = facts()
    half = Facts(whole.frame[::2], whole.vectors[::2], True)
    names = whole.frame["uid"]
    every = set(names[hold_out(whole, 0.3, 1000, 0, 4, 0.03).chosen].to_list())
    some = set(half.frame["uid"][hold_out(half, 0.3, 1000, 0, 4, 0.03).chosen].to_list())
    alone = {names[at] for at in range(0, 400, 2) if partner(at) is None}
    assert some & alone == every & alone
    assert every != set(names[hold_out(whole, 0.3, 1000, 1, 4, 0.03).chosen].to_list())


def test_at_most_so_many_are_held_out() -> None:
    found = hold_out(facts(), 0.5, 20, 0, 4, 0.03)
    assert len(found.chosen) == 20
    assert len(found.pool) > 360 - 20
