"""Batches: the same for every world, worker count and resume; rows whose every column is where it should be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import fields, replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from mmdata.errors import DataError
from mmdata.score.preprocess import Preprocess
from mmdata.workspace.layout import Workspace
from tests.support.made_release import Sample, jpeg, mixed_samples, shard_of, write_release
from tests.training.conftest import upload
from training.data.augment import RandomCrops
from training.data.batch_readers import EmptySplit, PairReader, Reader, RowReader, Share
from training.data.batch_stream import batches
from training.data.batch_types import Batch, PairBatch, PlacedMedia
from training.data.examples import Example, Instructions, Pairs
from training.data.media_tensors import MediaSpec, decode_media
from training.data.order import Order
from training.data.records import open_records
from training.data.row_layout import Layout
from training.data.sample_index import TrainingRelease, open_training_release, row_uid
from training.data.sample_reader import SampleReader
from training.data.text_codec import IGNORED, MEDIA_PLACEHOLDER, TextCodec, load_tokenizer

SPEC = MediaSpec(Preprocess(size=(16, 16)), frames=4, audio_samples=8000)
PAIRS = Layout(picture_tokens=4, sound_tokens=6, pack_length=160, max_text_tokens=120, packed=True, template=False)
TURNS = replace(PAIRS, template=True, pack_length=256, max_text_tokens=200)
ALONE = Share()
CODEC = TextCodec(load_tokenizer("bytes"))
BAD = {one.uid for one in mixed_samples() if one.media.get("jpg", b"").startswith(b"\xff\xd8 no")}
MEDIA_SAMPLES = [one for one in mixed_samples() if one.media and one.split == "train" for _ in range(one.copies)]


def tokenize(captions: list[str]) -> torch.Tensor:
    tokens = torch.zeros(len(captions), 24, dtype=torch.int64)
    for at, caption in enumerate(captions):
        data = caption.encode()[:24]
        tokens[at, : len(data)] = torch.tensor(list(data), dtype=torch.int64) + 3
    return tokens


@pytest.fixture(scope="module")
def release(mixed: Workspace, tmp_path_factory: pytest.TempPathFactory) -> TrainingRelease:
    return open_training_release(str(mixed.root), tmp_path_factory.mktemp("cache"))


def pairs_of(release: TrainingRelease, split: str = "train", spec: MediaSpec = SPEC) -> Pairs:
    return Pairs(release.samples(split), SampleReader(release), spec)


def order_of(source: Any, seed: int = 0) -> Order:
    return Order(len(source), seed, block=4, window_blocks=3)


def pair_reader(release: TrainingRelease, size: int = 8, share: Share = ALONE, crop: float = 1.0) -> PairReader:
    source = pairs_of(release, spec=replace(SPEC, crops=None if crop == 1 else RandomCrops(crop, 0)))
    return PairReader(source, order_of(source), size, share, tokenize)


def row_reader(
    release: TrainingRelease, size: int = 8, share: Share = ALONE, layout: Layout = PAIRS, split: str = "train"
) -> RowReader:
    source = pairs_of(release, split)
    return RowReader(source, order_of(source), size, share, CODEC, layout)


def turns_reader(release: TrainingRelease, size: int = 8, share: Share = ALONE, layout: Layout = TURNS) -> RowReader:
    records, samples = open_records(release, "record", "train", None), release.samples("train")
    source = Instructions(records, samples, SampleReader(release), SPEC)
    return RowReader(source, order_of(source), size, share, CODEC, layout)


def equal(batch: Batch | PlacedMedia, other: Batch | PlacedMedia) -> bool:
    assert type(batch) is type(other)
    for field in fields(batch):
        ours, theirs = getattr(batch, field.name), getattr(other, field.name)
        if isinstance(ours, PlacedMedia):
            assert equal(ours, theirs)
        elif isinstance(ours, torch.Tensor):
            assert ours.dtype == theirs.dtype, field.name
            assert torch.equal(ours, theirs), field.name
        else:
            assert ours == theirs, field.name
    return True


def take(reader: Reader, count: int, consumed: int = 0, workers: int = 0) -> list[Batch]:
    stream = batches(reader, consumed, workers, 2)
    return list(islice(stream, count))


READERS = {"pairs": pair_reader, "rows": row_reader, "instructions": turns_reader}
STEPS = 11  # more than an epoch of pairs


@pytest.fixture(params=READERS)
def make(request: pytest.FixtureRequest, release: TrainingRelease, instructed: TrainingRelease) -> Any:
    """A maker of one kind of reader, by batch size and share."""
    kind = READERS[request.param]
    return lambda size=8, share=ALONE: kind(instructed if kind is turns_reader else release, size, share)


@pytest.mark.parametrize("world", [2, 4])
def test_the_same_samples_at_every_world_size(make: Any, world: int) -> None:
    alone = take(make(), STEPS)
    ranks = [take(make(8, Share(rank, world)), STEPS) for rank in range(world)]
    for step, whole in enumerate(alone):
        parts = [rank[step] for rank in ranks]
        assert Counter(uid for part in parts for uid in part.uids) == Counter(whole.uids)
        assert sum(part.bad for part in parts) == whole.bad
        assert sum(part.read for part in parts) == whole.read == len(whole.uids)
        assert {part.consumed for part in parts} == {whole.consumed}
        main = "text" if isinstance(whole, PairBatch) else "input_ids"
        assert len({getattr(part, main).shape for part in parts}) == 1, "no rank has another shape"
        if main == "text":
            assert [uid for part in parts for uid in part.uids] == whole.uids
            for name in ("text", "weight", "group"):
                assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name))
        else:
            dealt = torch.stack([part.input_ids for part in parts], 1).flatten(0, 1)
            assert torch.equal(dealt[: len(whole.input_ids)], whole.input_ids)
            assert not (dealt[len(whole.input_ids) :] != CODEC.pad).any()


def test_the_same_batches_from_any_number_of_workers(make: Any) -> None:
    expected = take(make(), 7)
    for workers in (1, 2):
        assert all(map(equal, take(make(), 7, workers=workers), expected))


def test_resuming_from_any_state_gives_the_same_further_batches(make: Any) -> None:
    whole = take(make(), STEPS)
    for step in range(STEPS - 2):
        again = take(make(), 2, whole[step].consumed)
        assert all(map(equal, again, whole[step + 1 : step + 3]))
    assert all(map(equal, take(make(), 3, whole[2].consumed, workers=2), whole[3:6]))


@pytest.mark.parametrize("sizes", [(8, 5), (3, 16), (8, 400)])
def test_another_batch_size_after_a_resume_reads_each_sample_once_an_epoch(make: Any, sizes: tuple[int, int]) -> None:
    n = len(make().source)
    first = take(make(sizes[0]), 3)
    uids, consumed = [uid for batch in first for uid in batch.uids], first[-1].consumed
    assert consumed < n
    for batch in batches(make(sizes[1]), consumed):
        uids += batch.uids
        if batch.consumed == n:
            break
    everything = take(make(n), 1)[0]
    assert everything.consumed == n
    assert Counter(uids) == Counter(everything.uids)
    assert len(uids) == n


def test_the_last_batch_of_an_epoch_is_padded_with_weight_zero(release: TrainingRelease) -> None:
    n = len(MEDIA_SAMPLES)
    assert n % 8, "or there would be nothing to see"
    steps = -(-n // 8)
    read = take(pair_reader(release), 2 * steps)
    assert len({batch.text.shape for batch in read}) == 1
    for epoch in (read[:steps], read[steps:]):
        assert sum(float(batch.weight.sum()) for batch in epoch) == n
        last = epoch[-1]
        real = n % 8
        assert last.weight.tolist() == [1.0] * real + [0.0] * (8 - real)
        assert last.read == len(last.uids) == len(last.is_clip) == real
        assert int(last.picture_of.max()) < real
        assert torch.equal(last.text[real:], tokenize([""]).expand(8 - real, -1))
    assert [batch.consumed for batch in read[steps - 2 : steps + 1]] == [n // 8 * 8, n, n + 8]
    assert [batch.uids for batch in read[:steps]] != [batch.uids for batch in read[steps:]]
    spare = take(pair_reader(release, 8, Share(3, 4)), steps)[-1]
    assert (spare.read, spare.weight.sum(), spare.picture) == (0, 0, None)


def test_an_epoch_reads_every_sample_with_media_once(release: TrainingRelease) -> None:
    batch = take(pair_reader(release, len(MEDIA_SAMPLES)), 1)[0]
    uids, expected = Counter(batch.uids), Counter(sample.uid for sample in MEDIA_SAMPLES)
    assert expected - uids == Counter(BAD)
    assert (uids - expected).total() == len(BAD) == batch.bad


def test_a_picture_that_cannot_be_decoded_is_replaced_by_its_neighbour(release: TrainingRelease) -> None:
    reader = pair_reader(release)
    uids = [row_uid(reader.source.row(at)) for at in range(len(reader.source))]  # type: ignore[union-attr]
    for uid in BAD:
        at = uids.index(uid)
        example, tries = reader.example(at)
        assert tries == 1
        assert example.uid == uids[at + 1]
        assert reader.example(at)[0].turns == example.turns


def test_pairs_are_their_samples(release: TrainingRelease) -> None:
    by_uid = {one.uid: one for one in mixed_samples()}
    for batch in take(pair_reader(release), 6):
        samples = [by_uid[uid] for uid in batch.uids]
        assert torch.equal(batch.text[: len(samples)], tokenize([one.caption for one in samples]))
        media = [decode_media(one.media, SPEC) for one in samples]
        assert batch.is_clip.tolist() == [one.is_clip for one in media]
        pictures = [
            (at, picture) for at, one in enumerate(media) if one.pictures is not None for picture in one.pictures
        ]
        assert batch.picture_of.tolist() == [at for at, _ in pictures]
        assert torch.equal(batch.picture, torch.stack([picture for _, picture in pictures]))
        sounds = [(at, one.sound) for at, one in enumerate(media) if one.sound is not None]
        assert batch.sound_of.tolist() == [at for at, _ in sounds]
        assert (batch.sound is None) == (not sounds)
        for ours, (_, sound) in zip(batch.sound if sounds else (), sounds, strict=True):
            assert torch.equal(ours, sound)


def test_the_same_caption_is_the_same_group(tmp_path: Path) -> None:
    samples = [Sample("twice", {"jpg": jpeg(1)}, copies=2), Sample("once", {"jpg": jpeg(2)})]
    workspace = write_release(tmp_path / "own", samples)
    opened = open_training_release(str(workspace.root), tmp_path / "cache")
    batch = take(pair_reader(opened, 4), 1)[0]
    groups = dict(zip(batch.uids, batch.group.tolist(), strict=False))
    assert Counter(batch.group.tolist()) == {groups[samples[0].uid]: 2, groups[samples[1].uid]: 1, 0: 1}


def test_crops_change_with_the_epoch_and_nothing_else(release: TrainingRelease) -> None:
    n = len(MEDIA_SAMPLES)
    whole, first, second = take(pair_reader(release, n), 1)[0], *take(pair_reader(release, n, crop=0.5), 2)

    def pictures(read: list[Batch]) -> dict[str, torch.Tensor]:
        return {
            batch.uids[owner]: picture
            for batch in read
            for owner, picture in zip(batch.picture_of.tolist(), batch.picture, strict=True)
        }

    plain, once, again = pictures([whole]), pictures([first]), pictures([second])
    assert plain.keys() == once.keys() == again.keys()
    for other in (plain, again):
        assert sum(torch.equal(once[uid], other[uid]) for uid in plain) < len(plain) / 4, "few crops are the whole"
    ranks = [take(pair_reader(release, 8, Share(rank, 2), 0.5), -(-n // 8), workers=rank) for rank in (0, 1)]
    copied = {sample.uid for sample in MEDIA_SAMPLES if sample.copies > 1} | {
        uid for uid, count in Counter(first.uids).items() if count > 1
    }
    split = pictures([batch for rank in ranks for batch in rank if batch.picture is not None])
    assert all(torch.equal(split[uid], once[uid]) for uid in once if uid not in copied)


def pieces(
    batch: Batch, layout: Layout
) -> Iterator[tuple[str, list[int], list[int], list[tuple[str, torch.Tensor, int]]]]:
    """Each sample of a batch, in the order of `uids`: its uid, text tokens, labels, media with tokens before them."""
    uids = iter(batch.uids)
    for row in range(len(batch.input_ids)):
        segment = batch.segment[row]
        for number in range(1, int(segment.max()) + 1):
            columns = torch.nonzero(segment == number)[:, 0]
            start = int(columns[0])
            assert columns.tolist() == list(range(start, start + len(columns))), "a sample is one run"
            assert batch.position_ids[row, columns].tolist() == list(range(len(columns)))
            assert batch.labels[row, start] == IGNORED
            taken, media = set(), []
            for kind, width in (("picture", layout.picture_tokens), ("sound", layout.sound_tokens)):
                chosen = (batch.media[kind].row == row) & (batch.media[kind].segment == number)
                for at in torch.nonzero(chosen)[:, 0].tolist():
                    first = int(batch.media[kind].start[at])
                    columns_of_medium = list(range(first, first + width))
                    assert set(columns_of_medium) <= set(columns.tolist())
                    assert not taken & set(columns_of_medium)
                    assert (batch.input_ids[row, columns_of_medium] == CODEC.pad).all()
                    assert (batch.labels[row, columns_of_medium] == IGNORED).all()
                    media.append((kind, batch.media[kind].data[at], first))
                    taken |= set(columns_of_medium)
            text = [column for column in columns.tolist() if column not in taken]
            before = [(kind, one, sum(column < first for column in text)) for kind, one, first in media]
            yield next(uids), batch.input_ids[row, text].tolist(), batch.labels[row, text].tolist(), before
        free = segment == 0
        assert (batch.input_ids[row, free] == CODEC.pad).all()
        assert (batch.labels[row, free] == IGNORED).all()
        assert batch.position_ids[row, free].tolist() == list(range(int(free.sum())))
    assert next(uids, None) is None


@pytest.mark.parametrize("packed", [True, False])
def test_rows_hold_captions_behind_their_media(release: TrainingRelease, packed: bool) -> None:
    layout = replace(PAIRS, packed=packed, pack_length=400, max_text_tokens=380)
    by_uid = {one.uid: one for one in mixed_samples()}
    seen = Counter()
    for batch in take(row_reader(release, layout=layout), 6):
        assert batch.cut_tokens == 0
        seen["packed"] += int(batch.segment.max() > 1)
        for uid, ids, labels, media in pieces(batch, layout):
            held = decode_media(by_uid[uid].media, SPEC)
            assert labels == [IGNORED, *ids[1:]]
            assert ids[0] == CODEC.start
            assert ids[-1] == CODEC.eos
            assert CODEC.decode(ids[1:]) == by_uid[uid].caption.strip()
            expected = [("picture", one) for one in (held.pictures if held.pictures is not None else [])]
            expected += [("sound", held.sound)] if held.sound is not None else []
            assert [(kind, at) for kind, _, at in media] == [(kind, 0) for kind, _ in expected]
            assert all(torch.equal(ours, theirs) for (_, ours, _), (_, theirs) in zip(media, expected, strict=True))
            seen[by_uid[uid].signature] += 1
    assert {"image+text", "text+video", "audio+text+video", "audio+text"} <= seen.keys()
    assert (seen["packed"] > 0) == packed


def test_rows_hold_answers_that_alone_are_learned(instructed: TrainingRelease) -> None:
    layout = replace(TURNS, pack_length=700, max_text_tokens=600)
    reader = turns_reader(instructed, layout=layout)
    examples = {}
    for at in range(len(reader.source)):
        example, tries = reader.example(at)
        examples[example.uid] = example
        assert tries == 0 or example.uid != reader.source._records.record(at)["id"]  # type: ignore[union-attr]
    counted = Counter()
    whole = [batch for batch in take(reader, 14) if batch.cut_tokens == 0]
    assert len(whole) > 7
    for batch in whole:
        for uid, ids, labels, media in pieces(batch, layout):
            prompt, answer = examples[uid].turns
            assert CODEC.decode([label for label in labels if label != IGNORED]) == answer.text.strip()
            unlearned = [token for token, label in zip(ids, labels, strict=True) if label == IGNORED]
            assert (
                CODEC.tokenizer.decode(unlearned) == f"User: {prompt.text.replace(MEDIA_PLACEHOLDER, '')}\nAssistant:"
            )
            pictures = examples[uid].media.pictures
            assert len(media) == (0 if pictures is None else len(pictures))
            begin = len("User: ")
            assert [at for *_, at in media] == [begin + place for place in range(len(media))], "a break behind each"
            for (_, ours, _), theirs in zip(media, pictures if pictures is not None else [], strict=True):
                assert torch.equal(ours, theirs)
            counted[len(media)] += 1
    assert min(counted[0], counted[1], counted[2]) > 3


@pytest.mark.parametrize("kind", ["pairs", "turns"])
def test_rows_that_are_too_long_are_cut_and_counted(
    release: TrainingRelease, instructed: TrainingRelease, kind: str
) -> None:
    for pack_length, most in ((64, 500), (200, 30)):
        layout = replace(PAIRS if kind == "pairs" else TURNS, pack_length=pack_length, max_text_tokens=most)
        reader = row_reader(release, layout=layout) if kind == "pairs" else turns_reader(instructed, layout=layout)
        by_uid: dict[str, Example] = {}
        for at in range(len(reader.source)):
            example, _ = reader.example(at)
            by_uid[example.uid] = example
        generous = type(reader)(reader.source, reader.order, 8, Share(), CODEC, replace(layout, max_text_tokens=10**6))
        total = 0
        for batch in take(reader, 6):
            assert batch.input_ids.shape[1] == pack_length
            lost = 0
            for uid, ids, labels, _ in pieces(batch, layout):
                whole = generous.encode(by_uid[uid])
                assert len(ids) <= most
                assert ids == whole.ids[: len(ids)]
                assert labels == whole.labels[: len(ids)]
                lost += len(whole.ids) - len(ids)
            assert lost == batch.cut_tokens
            total += lost
        assert total > 100


def test_shapes_stay_while_rows_are_packed(release: TrainingRelease) -> None:
    assert {batch.input_ids.shape[1] for batch in take(row_reader(release), 8)} == {PAIRS.pack_length}


def test_packing_saves_rows_and_rarely_cuts(release: TrainingRelease) -> None:
    n = len(MEDIA_SAMPLES)
    layout = replace(PAIRS, pack_length=512, max_text_tokens=500)
    batch = take(row_reader(release, n, layout=layout), 1)[0]
    assert batch.cut_tokens == 0
    assert (batch.segment > 0).float().mean() > 0.5
    assert len(batch.input_ids) < n / 4


def test_a_text_longer_than_its_estimate_does_not_break_an_unpacked_batch(tmp_path: Path) -> None:
    """Forty short captions say how long two words are; one has a word of 150 letters."""
    captions = [f"cat {number}" for number in range(40)]
    captions[7] = f"{'l' * 75}o{'n' * 74}g 7"
    samples = [Sample(caption, {"jpg": jpeg(number)}) for number, caption in enumerate(captions)]
    workspace = write_release(tmp_path / "own", samples)
    opened = open_training_release(str(workspace.root), tmp_path / "cache")
    layout = replace(PAIRS, packed=False, pack_length=512, max_text_tokens=400)
    batch = take(row_reader(opened, 40, layout=layout), 1)[0]
    assert batch.input_ids.shape == (40, 192)
    assert batch.cut_tokens == 0
    assert {CODEC.decode(ids[1:]) for _, ids, _, _ in pieces(batch, layout)} == set(captions)


def test_media_that_fill_a_row_alone_are_named(release: TrainingRelease) -> None:
    layout = replace(PAIRS, picture_tokens=30, pack_length=64)
    with pytest.raises(DataError, match=r"its media alone are over pack_length 64"):
        take(row_reader(release, layout=layout), 6)


def test_a_stand_in_with_more_media_than_its_place_stays_out(tmp_path: Path) -> None:
    """A clip cannot take the place of a picture in a row that is full; the run goes on without it."""
    frames = {f"{at:03d}.jpg": jpeg(at) for at in range(4)}
    samples = [
        Sample("bad", {"jpg": b"no picture"}),
        Sample("a clip", frames),
        *(Sample(f"cat {number}", {"jpg": jpeg(number)}) for number in range(6)),
    ]
    workspace = write_release(tmp_path / "own", samples)
    opened = open_training_release(str(workspace.root), tmp_path / "cache")
    layout = replace(PAIRS, picture_tokens=20, pack_length=100, max_text_tokens=30)
    batch = take(row_reader(opened, 8, layout=layout), 1)[0]
    assert (batch.bad, batch.read) == (1, 7)
    assert Counter(batch.uids) == Counter(sample.uid for sample in samples[1:])
    assert len(list(pieces(batch, layout))) == 7
    lonely = take(row_reader(opened, 8, layout=replace(layout, packed=False)), 1)[0]
    assert (lonely.bad, lonely.read, len(lonely.input_ids)) == (1, 7, 8)


def test_reading_leaves_the_process_its_threads(release: TrainingRelease) -> None:
    """Training on a CPU goes on with all of them."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        take(pair_reader(release), 1)
        take(row_reader(release), 1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_split_without_media_has_nothing_to_read(tmp_path: Path) -> None:
    workspace = write_release(
        tmp_path / "own", [Sample("only words"), Sample("held out", {"jpg": jpeg(1)}, "validation")]
    )
    opened = open_training_release(str(workspace.root), tmp_path / "cache")
    for kind in (pair_reader, row_reader):
        with pytest.raises(EmptySplit):
            kind(opened)
    assert len(pairs_of(opened, "validation")) == 1


def test_data_that_cannot_be_read_at_all_ends_the_run(tmp_path: Path) -> None:
    samples = [Sample(f"bad {number}", {"jpg": b"no picture"}) for number in range(5)]
    workspace = write_release(tmp_path / "own", samples)
    opened = open_training_release(str(workspace.root), tmp_path / "cache")
    for kind in (pair_reader, row_reader):
        with pytest.raises(DataError, match="64 samples in a row cannot be read; the last: undecodable"):
            take(kind(opened, 4), 1)


def test_a_caption_that_is_no_text_is_a_bad_sample(tmp_path: Path) -> None:
    samples = [Sample(f"cat {number}", {"jpg": jpeg(number)}) for number in range(2)]
    workspace = write_release(tmp_path / "own", samples, shard_samples=1)
    shard = workspace.shards_dir / shard_of(workspace, samples[0].uid)
    shard.write_bytes(shard.read_bytes().replace(b"cat 0\0", b"cat \xff\0"))
    opened = open_training_release(str(workspace.root), tmp_path / "cache")
    for kind in (pair_reader, row_reader):
        batch = take(kind(opened, 2), 1)[0]
        assert batch.bad == 1
        assert batch.uids == [samples[1].uid] * 2


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_shard_is_named_from_any_process(tmp_path: Path, workers: int) -> None:
    samples = [Sample(f"cat {number}", {"jpg": jpeg(number)}) for number in range(12)]
    workspace = write_release(tmp_path / "own", samples, shard_samples=4)
    opened = open_training_release(str(workspace.root), tmp_path / "cache")
    reader = pair_reader(opened, 4)
    shard = workspace.shards_dir / opened.shards[1]
    shard.write_bytes(shard.read_bytes()[:2000])
    with pytest.raises(DataError, match=rf"{shard.name}: byte \d+ does not begin a member"):
        take(reader, 3, workers=workers)


def test_batches_over_s3_equal_local_ones(
    instructed: TrainingRelease, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.data.batch_readers.CALIBRATION_SAMPLES", 8)
    there = open_training_release(upload(instructed.release.workspace.root, bucket), tmp_path / "cache")
    for name, kind in READERS.items():
        reader, expected = kind(there), take(kind(instructed), 2)
        assert all(map(equal, take(reader, 2), expected))
        if name == "pairs":  # now from workers, which are forks of a process that has read before
            assert all(map(equal, take(reader, 2, workers=2), expected))
