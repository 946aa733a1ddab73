"""Train and validation share no cluster, no bytes and no URL."""

from __future__ import annotations

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdata.select.split import in_validation as split

SCHEMA = {
    "cluster": pl.Int32,
    "sha256": pl.UInt64,
    "url": pl.UInt64,
    "file": pl.UInt64,
    "uid_high": pl.UInt64,
    "uid_low": pl.UInt64,
}
ROW = st.tuples(
    st.none() | st.integers(-1, 6),
    st.none() | st.integers(0, 8),
    st.none() | st.integers(0, 8),
    st.none() | st.integers(0, 5),
)


def in_validation(frame: pl.DataFrame, fraction: float, seed: int) -> np.ndarray:
    return split(frame, fraction, seed)[0]


def rows(*given: tuple[int | None, ...]) -> pl.DataFrame:
    """Rows of cluster, sha256, url and, of clips, file."""
    data = [(*one, *[None] * (4 - len(one)), number * 2**40, number) for number, one in enumerate(given)]
    return pl.DataFrame(data, schema=SCHEMA, orient="row")


def clusters(count: int, size: int = 3) -> pl.DataFrame:
    return rows(*((number % count, 1000 + number, 5000 + number) for number in range(count * size)))


@settings(max_examples=200)
@given(st.lists(ROW, max_size=25), st.floats(0, 0.9), st.integers(0, 50))
def test_nothing_that_is_linked_stands_on_both_sides(given_rows: list, fraction: float, seed: int) -> None:
    frame = rows(*given_rows).with_columns(pl.Series("held", in_validation(rows(*given_rows), fraction, seed)))
    clustered = frame.filter((pl.col("cluster") >= 0) & pl.col("file").is_null())
    for part, name in ((clustered, "cluster"), (frame, "sha256"), (frame, "url"), (frame, "file")):
        sides = part.filter(pl.col(name).is_not_null()).group_by(name).agg(pl.col("held").n_unique())
        assert (sides["held"] == 1).all()


@given(st.integers(20, 60), st.floats(1e-9, 0.5), st.integers(0, 1000))
def test_with_twenty_clusters_validation_is_never_empty(count: int, fraction: float, seed: int) -> None:
    held = in_validation(clusters(count), fraction, seed)
    assert held.any()
    assert not held.all()


def test_a_giant_cluster_is_not_taken_for_want_of_another() -> None:
    small = [(number, None, number) for number in range(1, 20)]
    giant = [(0, None, 100 + number) for number in range(500)]
    for seed in range(50):
        held = in_validation(rows(*small, *giant), 1e-12, seed)
        assert held.sum() == 1


@given(st.integers(0, 1000), st.lists(st.integers(0, 24), min_size=1, max_size=40))
def test_what_stands_in_for_want_of_a_low_draw_stays_when_sizes_change(seed: int, grown: list[int]) -> None:
    """Each cluster has the mean's size: one more row anywhere, and another would be no larger than the mean."""
    frame = clusters(25)
    held, draw = split(frame, 1e-12, seed)
    more = rows(*((cluster, 20_000 + number, 30_000 + number) for number, cluster in enumerate(grown)))
    after, again = split(pl.concat([frame, more]), 1e-12, seed, draw)
    assert (after[: len(frame)] == held).all()
    assert again == draw


def test_what_stood_in_goes_to_train_once_a_draw_is_low_enough_and_another_follows_when_it_is_gone() -> None:
    frame = clusters(40)
    held, draw = split(frame, 1e-12, 0)
    assert draw is not None
    enough, none = split(frame, 0.9, 0, draw)
    assert none is None
    assert enough.any()
    left, other = split(frame.filter(~held), 1e-12, 0, draw)
    assert left.any()
    assert other not in {None, draw}


def test_no_fraction_no_rows_no_validation() -> None:
    assert not in_validation(clusters(30), 0, 0).any()
    assert in_validation(rows(), 0.5, 0).tolist() == []
    assert not in_validation(rows((0, 1, 1)), 1e-9, 0).any()


def test_the_share_held_out_is_near_the_fraction_also_without_clusters() -> None:
    alone = rows(*((None, 10_000 + number, number) for number in range(4000)))
    bare = rows(*((None, None, None) for _ in range(4000)))
    for frame in (alone, bare, clusters(4000, 1)):
        assert abs(in_validation(frame, 0.1, 0).mean() - 0.1) < 0.02


def test_added_rows_leave_the_side_of_a_cluster_alone() -> None:
    frame = clusters(40)
    more = pl.concat([frame, clusters(60).with_columns(pl.col("url") + 9000, pl.col("sha256") + 9000)])
    before, after = in_validation(frame, 0.2, 0), in_validation(more, 0.2, 0)
    assert (before == after[: len(frame)]).all()


def test_a_link_moves_a_cluster_to_train_and_never_out_of_it() -> None:
    frame = clusters(40)
    before = in_validation(frame, 0.2, 0)
    linked = frame.with_columns(pl.when(pl.col("cluster") < 10).then(7).otherwise("url").alias("url").cast(pl.UInt64))
    after = in_validation(linked, 0.2, 0)
    assert not (after & ~before).any()
    assert len(np.unique(after[frame["cluster"].to_numpy() < 10])) == 1


def test_clips_of_many_clusters_chain_nothing_together() -> None:
    pictures = [(number % 30, 1000 + number, 5000 + number) for number in range(300)]
    clips = [(number % 30, 2000 + number, 7000 + number, number // 30) for number in range(900)]  # 30 files, all over
    frame = rows(*pictures, *clips)
    held = in_validation(frame, 0.2, 0)
    assert (held[:300] == in_validation(rows(*pictures), 0.2, 0)).all()
    assert 0 < held[300:].sum() < 600
    sides = frame[300:].with_columns(pl.Series("held", held[300:])).group_by("file").agg(pl.col("held").n_unique())
    assert (sides["held"] == 1).all()


def test_more_clips_of_a_file_leave_its_side_alone() -> None:
    before = rows(*((None, 100 + number, number, number % 40) for number in range(80)))
    after = rows(*((None, 100 + number, number, number % 40) for number in range(400)))
    assert (in_validation(after, 0.2, 0)[:80] == in_validation(before, 0.2, 0)).all()
