"""What goes into a shard of each sample: members, facts, seeds, sizes; from tables of every signature."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import polars as pl
import pytest

from mmdata.releases.draft import read_draft
from mmdata.select.stage import select_samples
from mmdata.shards.facts import facts_problem
from mmdata.shards.members import augment_seeds, complete, estimate_bytes, load_members, stored_members, stored_size
from mmdata.storage.tar import padded
from tests.support import modalities
from tests.support.workspaces import Built

Selected = tuple[Built, pl.DataFrame]


@pytest.fixture(scope="module")
def selected(tmp_path_factory: pytest.TempPathFactory) -> Selected:
    """A workspace that nobody changes, and the samples kept in it, twice each."""
    built = modalities.build(tmp_path_factory.mktemp("members"))
    select_samples(built.corpus, built.workspace)
    folder = built.workspace.release_dir(read_draft(built.workspace).release_id)
    kept = pl.read_parquet((folder / "selection.parquet").path).filter("keep")
    return built, kept.with_columns(repeats=pl.lit(2, pl.Int64))


@pytest.fixture(scope="module")
def frame(selected: Selected) -> pl.DataFrame:
    """Both copies of each sample, with all that goes into their shard."""
    built, kept = selected
    copies = pl.concat([kept.with_columns(copy=pl.lit(copy, pl.Int32)) for copy in (0, 1)])
    placed = copies.select("uid", "copy", "signature", "split", "clip_score")
    return complete(placed, load_members(built.workspace, kept))


def row_of(frame: pl.DataFrame, sample: dict[str, Any], copy: int = 0) -> dict[str, Any]:
    return frame.row(by_predicate=(pl.col("uid") == sample["uid"]) & (pl.col("copy") == copy), named=True)


def facts_of(frame: pl.DataFrame, sample: dict[str, Any]) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(row_of(frame, sample)["json"])
    return facts


def test_the_order_is_the_one_given_and_keys_number_the_copies(selected: Selected, frame: pl.DataFrame) -> None:
    uids = selected[1]["uid"].to_list()
    assert frame["uid"].to_list() == uids * 2
    assert frame["key"].to_list() == uids + [f"{uid}_r01" for uid in uids]


def test_captions_and_transcripts_become_the_text(frame: pl.DataFrame) -> None:
    heard = modalities.sound(3)
    assert row_of(frame, heard)["txt"].decode() == heard["transcript"] == facts_of(frame, heard)["transcript"]
    captioned = modalities.sound(1)
    assert row_of(frame, captioned)["txt"].decode() == captioned["caption"]
    assert facts_of(frame, captioned)["transcript"] == ""


def test_a_clip_counts_its_frames_seconds_and_pixels(frame: pl.DataFrame) -> None:
    measures = ("frames", "seconds", "pixels")
    clip, sound, picture = (
        tuple(row_of(frame, sample)[name] for name in measures)
        for sample in (modalities.clip(0, 0), modalities.sound(1), modalities.picture(1))
    )
    assert clip == (4, 10.0, 4 * 32 * 24)
    assert sound == (0, 3.0, 0)
    assert picture == (0, None, 32 * 24)


def test_every_sample_has_all_facts_whatever_it_lacks(frame: pl.DataFrame) -> None:
    clip, picture = facts_of(frame, modalities.clip(2, 3)), facts_of(frame, modalities.picture(1))
    assert (clip["start_s"], clip["end_s"], clip["fps"], clip["signature"]) == (30.0, 40.0, 25.0, "audio+text+video")
    names = ("start_s", "fps", "audio_s", "synthetic", "transcript", "augment")
    assert [picture[name] for name in names] == [-1.0, -1.0, -1.0, "", "", 0]
    assert {facts_problem(json.loads(data)) for data in frame["json"].to_list()} == {None}


def test_the_bytes_of_the_facts_are_canonical(frame: pl.DataFrame) -> None:
    for data in frame["json"].to_list():
        text = json.dumps(json.loads(data), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert data.decode() == text


def test_copies_have_seeds_of_their_own_and_the_first_has_none(frame: pl.DataFrame) -> None:
    assert set(frame.filter(pl.col("copy") == 0)["augment"]) == {0}
    seeds = frame.filter(pl.col("copy") == 1)["augment"]
    assert seeds.n_unique() == len(seeds)
    assert 0 < seeds.min() < seeds.max() < 2**53  # type: ignore[operator]
    uids, copies = pl.Series(["0" * 32] * 3), pl.Series([2, 0, 1])
    again = augment_seeds(uids, copies)
    assert again[1] == 0 and len(set(again.tolist())) == 3
    assert np.array_equal(again, augment_seeds(uids, copies))


def test_the_stored_members_keep_their_order(frame: pl.DataFrame) -> None:
    clip, text = modalities.clip(0, 0), modalities.text(1)
    for sample in (clip, text):
        one = frame.filter((pl.col("uid") == sample["uid"]) & (pl.col("copy") == 0))
        members = stored_members(one)
        assert members["ext"].to_list() == [ext for ext, _ in sample["members"]]
        assert members["length"].to_list() == [len(data) for _, data in sample["members"]]
        size = sum(int(padded(len(data))) for _, data in sample["members"])
        assert one.select(stored_size()).item() == size


def test_the_size_is_that_of_all_members_with_their_headers(frame: pl.DataFrame) -> None:
    clip = row_of(frame, sample := modalities.clip(0, 0))
    members = [data for _, data in sample["members"]]
    assert clip["size"] == sum(int(padded(len(data))) for data in [*members, clip["json"], clip["txt"]])


def test_the_estimate_is_close_to_the_sizes_of_all_copies(selected: Selected, frame: pl.DataFrame) -> None:
    built, kept = selected
    estimated = estimate_bytes(built.workspace, kept)
    sizes = dict(frame.group_by("split").agg(pl.col("size").sum()).iter_rows())
    assert set(estimated) == set(sizes) == {"train", "validation"}
    for split, size in sizes.items():
        assert estimated[split] == pytest.approx(size, rel=0.05)
