"""What is held out is true, drawn by hash, and has no near duplicate in the pool."""

from __future__ import annotations

import hashlib

import numpy as np
import polars as pl

from training.compare.held_out import Likeness, draw_held_out, thin, too_like


def pairs(n: int = 400, knows_truth: bool = True) -> tuple[pl.DataFrame, np.ndarray]:
    """Every fifth pair is nearly the one before, each time in another way; every seventh caption is false."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(n, 16)).astype(np.float32)
    names = [f"{at:032x}" for at in range(n)]
    hashes = rng.integers(0, 2**63, n, dtype=np.uint64)
    sha = [hashlib.sha256(name.encode()).hexdigest() for name in names]
    urls = [f"https://example.org/{at}" for at in range(n)]
    originals: list[str | None] = [None] * n
    groups: list[str | None] = [None] * n
    for turn, at in enumerate(range(4, n, 5)):
        match turn % 6:
            case 0:
                vectors[at] = vectors[at - 1] * 1.01
            case 1:
                hashes[at] = hashes[at - 1] ^ np.uint64(0b1011)
            case 2:
                sha[at] = sha[at - 1]
            case 3:
                urls[at] = urls[at - 1]
            case 4:
                groups[at] = groups[at - 1] = f"group {at}"
            case _:
                originals[at] = names[at - 1]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    true = [(at % 7 != 0) if knows_truth else None for at in range(n)]
    columns = {"uid": names, "url": urls, "sha256": sha, "phash": hashes, "group": groups, "original": originals}
    schema = {"group": pl.String, "original": pl.String, "true_pair": pl.Boolean}
    return pl.DataFrame({**columns, "true_pair": true}, schema_overrides=schema), vectors


def hold_out(frame: pl.DataFrame, vectors: np.ndarray, share: float, most: int, seed: int = 0) -> tuple[set, set]:
    """Rows that are held out, and rows that may be trained on."""
    alike = Likeness(frame, vectors)
    held = thin(alike, draw_held_out(frame, share, most, seed), most)
    return set(held.tolist()), set(np.flatnonzero(~too_like(alike, held, len(frame))).tolist())


def partner(at: int) -> int | None:
    """The sample that is nearly the same."""
    return at - 1 if at % 5 == 4 else at + 1 if at % 5 == 3 else None


def test_nothing_nearly_the_same_as_a_held_out_pair_is_trained_on() -> None:
    chosen, pool = hold_out(*pairs(), 0.3, 1000)
    assert len(chosen) > 60
    assert not chosen & pool
    partners = {partner(at) for at in chosen} - {None}
    assert partners
    assert not partners & pool
    assert not partners & chosen, "no two held-out pairs are nearly the same"
    assert chosen | partners | pool == set(range(400)), "all else is trained on"


def test_only_true_captions_are_held_out_where_the_truth_is_known() -> None:
    assert all(at % 7 for at in hold_out(*pairs(), 0.5, 1000)[0])
    assert not all(at % 7 for at in hold_out(*pairs(knows_truth=False), 0.5, 1000)[0])


def test_the_draw_depends_on_the_pair_and_the_seed_alone() -> None:
    frame, vectors = pairs()
    alone = [at for at in range(0, 400, 2) if partner(at) is None]
    every = hold_out(frame, vectors, 0.3, 1000)[0]
    some = {at * 2 for at in hold_out(frame[::2], vectors[::2], 0.3, 1000)[0]}
    assert some & set(alone) == every & set(alone)
    assert every != hold_out(frame, vectors, 0.3, 1000, seed=1)[0]


def test_one_pair_of_a_group_is_held_out_whatever_its_size() -> None:
    frame, vectors = pairs()
    frame = frame.with_columns(group=pl.Series([f"g{at // 10}" for at in range(400)]))
    chosen, pool = hold_out(frame, vectors, 0.3, 1000)
    groups = [at // 10 for at in chosen]
    assert len(groups) == len(set(groups))
    assert not set(groups) & {at // 10 for at in pool}


def test_at_most_so_many_are_held_out() -> None:
    chosen, pool = hold_out(*pairs(), 0.5, 20)
    assert len(chosen) == 20
    assert len(pool) > 360 - 20
