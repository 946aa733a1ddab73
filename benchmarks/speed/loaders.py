"""Loaders of pictures and captions, ours and the peers', over the shards of one release: batches without an end.

All decode with OpenCV, crop at random and resize in one operation, with the same function, and give uint8 N,3,224,224
and the captions. Each may shuffle among `SHUFFLE` samples.
"""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks.speed.peers import shard_paths

BATCH, SHUFFLE, SIDE, CROP_SCALE = 256, 1024, 224, 0.9
SHARD_MB = 4.0

Batches = Iterator[tuple[list[str], Any]]
"""Keys of a batch's samples, and its pictures."""


def ours(workspace: str, workers: int) -> Batches:
    """The reader of stage align, without a tokenizer."""
    import torch

    from mmdata.score.preprocess import Preprocess
    from training.data.augment import RandomCrops
    from training.data.batch_readers import PairReader, Share
    from training.data.batch_stream import batches
    from training.data.examples import Pairs
    from training.data.media_tensors import MediaSpec
    from training.data.order import Order
    from training.data.sample_index import open_training_release
    from training.data.sample_reader import SampleReader

    release = open_training_release(workspace, Path(tempfile.mkdtemp(prefix="mmdata-loader-")))
    spec = MediaSpec(Preprocess(size=(SIDE, SIDE)), crops=RandomCrops(CROP_SCALE, 0))
    pairs = Pairs(release.samples("train"), SampleReader(release), spec)
    order = Order(len(pairs), 0, block=16, window_blocks=SHUFFLE // 16)
    reader = PairReader(pairs, order, BATCH, Share(), lambda captions: torch.zeros(len(captions), 1))
    for batch in batches(reader, 0, workers):
        yield batch.uids, batch.picture


def webdataset(workspace: str, workers: int) -> Batches:
    """Shards shuffled, then samples in a buffer, of which each worker has its share."""
    import webdataset

    shards = list(map(str, shard_paths(workspace)))
    dataset = (
        webdataset.WebDataset(shards, shardshuffle=len(shards), empty_check=False)
        .shuffle(SHUFFLE // workers)
        .to_tuple("__key__", "jpg", "txt")
        .map_tuple(_unchanged, decoded, bytes.decode)
        .batched(BATCH, collation_fn=_collated, partial=False)
        .repeat()
    )
    return _batches(webdataset.WebLoader(dataset, batch_size=None, num_workers=workers))


def wids(workspace: str, workers: int) -> Batches:
    """Random access to the shards, by the index in the release; its sampler shuffles chunks."""
    import wids as library
    from torch.utils.data import DataLoader

    releases = Path(workspace) / "releases"
    folder = releases / (releases / "latest").read_text().strip()
    index = json.loads((folder / "wids.json").read_text())
    for shard in index["shardlist"]:
        shard["url"] = str((folder / shard["url"]).resolve())
    dataset = library.ShardListDataset(index["shardlist"], keep=True, transformations=_decoded_sample)
    for epoch in count():
        sampler = library.ChunkedSampler(dataset, chunksize=SHUFFLE, shuffle=True, seed=epoch, shufflefirst=True)
        yield from _batches(DataLoader(dataset, BATCH, sampler=sampler, num_workers=workers, collate_fn=_collated))


def energon(workspace: str, workers: int) -> Batches:
    """The release as it is: it holds Energon's own index files."""
    from megatron.energon import DefaultTaskEncoder, WorkerConfig, get_loader, get_train_dataset

    class Encoder(DefaultTaskEncoder):
        """Decodes and crops; batches keys and pictures."""

        decoder = None

        def encode_sample(self, sample: Any) -> Any:
            return sample.__key__.rpartition("/")[2], decoded(sample.image), sample.caption

        def batch(self, samples: list[Any]) -> Any:
            return _collated(samples)

    releases = Path(workspace) / "releases"
    dataset = get_train_dataset(
        releases / (releases / "latest").read_text().strip(),
        batch_size=BATCH,
        shuffle_buffer_size=SHUFFLE // workers,
        max_samples_per_sequence=16,
        worker_config=WorkerConfig(rank=0, world_size=1, num_workers=workers),
        task_encoder=Encoder(),
    )
    return _batches(get_loader(dataset))


def litdata(workspace: str, workers: int) -> Batches:
    """Its own chunks, to which the release is converted before the clock starts."""
    import litdata as library

    folder = Path(workspace) / "litdata"
    if not folder.exists():
        library.optimize(_tar_samples, list(map(str, shard_paths(workspace))), str(folder), chunk_bytes="4MB",
                         num_workers=1, verbose=False)  # fmt: skip
    dataset = library.StreamingDataset(str(folder), shuffle=True, transform=_decoded_tuple)
    while True:
        loader = library.StreamingDataLoader(
            dataset, batch_size=BATCH, num_workers=workers, shuffle=True, collate_fn=_collated
        )
        yield from _batches(loader)


LOADERS: dict[str, Callable[[str, int], Batches]] = {
    "ours": ours, "webdataset": webdataset, "wids": wids, "megatron.energon": energon, "litdata": litdata,
}  # fmt: skip
"""By the module that each needs."""


def measure_loader(name: str, workspace: str, workers: int, samples: int, out: str) -> float:
    """Read `samples` samples after the first batch, and write the keys of each batch; for a process of its own."""
    import cv2
    import torch

    from benchmarks.harness import start_clock

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    stream, keys, read = LOADERS[name](workspace, workers), [], 0
    keys.append(next(stream)[0])
    start_clock()
    while read < samples:
        of_batch, pictures = next(stream)
        assert pictures.shape[1:] == (3, SIDE, SIDE)
        keys.append(of_batch)
        read += len(of_batch)
    Path(out).write_text(json.dumps(keys))
    return float(read)


def decoded(jpeg: bytes) -> Any:
    """A random crop of a picture: uint8 3,H,W."""
    import torch

    from mmdata.score.decode import decode_pixels
    from mmdata.score.preprocess import Preprocess
    from training.data.augment import random_crop

    crop = random_crop(CROP_SCALE, random.getrandbits(63))
    return torch.from_numpy(decode_pixels(jpeg, Preprocess(size=(SIDE, SIDE)), crop)).permute(2, 0, 1)


def _batches(loader: Iterable[Any]) -> Batches:
    for keys, pictures, _ in loader:
        yield keys, pictures


def _unchanged(value: Any) -> Any:
    return value


def _collated(samples: list[Any]) -> tuple[list[str], Any, list[str]]:
    import torch

    keys, pictures, captions = zip(*samples, strict=True)
    return list(keys), torch.stack(pictures), list(captions)


def _decoded_sample(sample: dict[str, Any]) -> Any:
    return sample["__key__"], decoded(sample[".jpg"].read()), sample[".txt"].read().decode()


def _decoded_tuple(sample: Any) -> Any:
    key, jpeg, caption = sample
    return key, decoded(jpeg), caption


def _tar_samples(path: str) -> Iterator[Any]:
    import webdataset

    for sample in webdataset.WebDataset(path, shardshuffle=False):
        yield sample["__key__"], sample["jpg"], sample["txt"].decode()
