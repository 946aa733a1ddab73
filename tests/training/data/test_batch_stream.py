"""Batches of several pieces are those of one piece, from any number of workers; closing ends the workers."""

from __future__ import annotations

import multiprocessing
import os
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from upath import UPath

from mmdata.workspace.layout import Workspace
from tests.training.conftest import upload
from tests.training.data.test_batch_readers import equal, pair_reader, row_reader, turns_reader
from training.data import batch_readers
from training.data.batch_stream import batches, first_batches
from training.data.range_reader import Range, RangeReader
from training.data.sample_index import TrainingRelease, open_training_release


@pytest.fixture(scope="module")
def release(mixed: Workspace, tmp_path_factory: pytest.TempPathFactory) -> TrainingRelease:
    return open_training_release(str(mixed.root), tmp_path_factory.mktemp("cache"))


@pytest.mark.parametrize("make", [pair_reader, row_reader])
def test_pieces_make_the_batch_that_is_read_at_once(
    release: TrainingRelease, make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = make(release, 24)
    whole = list(islice(batches(reader, 0), 3))
    monkeypatch.setattr(batch_readers, "PIECE_SAMPLES", 5)
    plans = [reader.plan(batch.consumed) for batch in whole]
    assert all(len(plan.pieces) > 3 for plan in plans)
    for workers in (0, 2):
        stream = batches(reader, 0, workers, prefetch=2)
        assert all(map(equal, islice(stream, 3), whole))
        stream.close()
    assert multiprocessing.active_children() == []


def test_workers_read_few_pieces_ahead(release: TrainingRelease, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_readers, "PIECE_SAMPLES", 2)
    reader = pair_reader(release, 24)
    planned: Counter[int] = Counter()
    plan = reader.plan
    monkeypatch.setattr(reader, "plan", lambda consumed: (planned.update([consumed]), plan(consumed))[1])
    stream = batches(reader, 0, workers=1, prefetch=1)
    next(stream)
    stream.close()
    assert max(planned) <= 24 * 3, "one is used, one waits, one is made, and a piece is ahead"


def test_an_error_in_a_worker_is_raised_here(release: TrainingRelease) -> None:
    reader = pair_reader(release)
    parent = os.getpid()

    def tokenize(captions: list[str]) -> Any:
        assert os.getpid() == parent, "read by a worker"
        return None

    reader._tokenize = tokenize
    with pytest.raises(AssertionError, match="read by a worker"):
        next(batches(reader, 0, workers=1))


def test_the_first_batches_hold_the_first_samples(release: TrainingRelease, tmp_path: Path) -> None:
    import torch

    reader = pair_reader(release, 8)
    for samples, count in ((1, 1), (8, 1), (9, 2)):
        assert len(list(first_batches(reader, samples, torch.device("cpu")))) == count


@pytest.mark.parametrize("make", [pair_reader, turns_reader])
def test_a_piece_asks_an_object_store_once(
    mixed: Workspace, instructed: TrainingRelease, bucket: str, tmp_path: Path, make: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    here = instructed if make is turns_reader else open_training_release(str(mixed.root), tmp_path / "here")
    root = UPath(upload(here.release.workspace.root, bucket))
    there = open_training_release(str(root), tmp_path / "there")
    reader = make(there, 24)
    expected = make(here, 24)[0]
    calls: list[int] = []
    client = RangeReader._client

    class Counting:
        def __init__(self, reader: RangeReader) -> None:
            self._many, self._one = client(reader).cat_ranges, client(reader).cat_file

        def cat_ranges(self, paths: list[str], *rest: Any, **options: Any) -> Any:
            calls.append(len(paths))
            return self._many(paths, *rest, **options)

        def cat_file(self, *rest: Any, **options: Any) -> Any:
            return self._one(*rest, **options)

    monkeypatch.setattr(RangeReader, "_client", property(lambda reader: lambda: Counting(reader)))
    alone: list[Range] = []
    read_alone = RangeReader._read_alone
    monkeypatch.setattr(
        RangeReader, "_read_alone", lambda reader, wanted: alone.append(wanted) or read_alone(reader, wanted)
    )
    plan = reader.plan(0)
    batch = reader.joined(map(reader.read, plan.pieces), plan)
    assert equal(batch, expected)
    assert len(alone) <= 3 * batch.bad, "only what stands for an unreadable sample: a line, and what it shows"
    assert len(plan.pieces) == 1
    assert len(calls) == (2 if make is turns_reader else 1), "the lines of records, and what they show"
