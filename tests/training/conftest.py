"""Fixtures for the tests of training."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from mmdata.instruct.forms import Record
from mmdata.instruct.media_paths import data_uri, member_path
from mmdata.workspace.layout import Workspace
from tests.support.made_release import Sample, jpeg, mixed_samples, shard_of, write_release
from tests.support.tiny_run import release_at
from training.data.sample_index import TrainingRelease, open_training_release

torch.set_num_threads(1)  # tests run in several processes; small tensors' threads would only wait for each other


@pytest.fixture(scope="session")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A release of pictures, clips, sound and text that nobody changes."""
    return write_release(tmp_path_factory.mktemp("mixed"), mixed_samples())


@pytest.fixture(scope="session")
def instructed(tmp_path_factory: pytest.TempPathFactory) -> TrainingRelease:
    """A release whose records show no picture, one, two, a clip, and one that is embedded."""
    root = tmp_path_factory.mktemp("instructed")
    samples = mixed_samples()
    workspace = write_release(root, samples)
    paths = {}
    for sample in samples:
        for ext in [name for name in sample.media if name in ("jpg", "000.jpg")]:
            paths[sample.uid] = member_path(sample.uid, ext, shard_of(workspace, sample.uid))
    records = []
    for number, sample in enumerate(samples):
        about = f"Question {number}?" if number % 3 else f"第{number}个问题 请回答"
        if sample.uid in paths:
            near = samples[(number + 5) % len(samples)]
            second = paths.get(near.uid) if near.split == sample.split else None
            records.append(Record(f"{sample.uid}-caption", "caption", "en", about, sample.caption, paths[sample.uid]))
            records.append(Record(f"{sample.uid}-both", "both", "en", about, f"{number}", paths[sample.uid], second))
        records.append(Record(f"{sample.uid}-qa", "text_qa", "en", about, sample.caption * 2))
    records.append(Record(f"{samples[0].uid}-own", "caption", "en", "This?", "a dog", data_uri(".jpg", jpeg(5))))
    write_release(root, samples, records)
    return open_training_release(str(root), root / "cache")


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A release of pictures alone, with records."""
    root = tmp_path_factory.mktemp("pictures")
    samples = [Sample(f"cat number {number}", {"jpg": jpeg(number)}) for number in range(12)]
    workspace: Workspace = write_release(root, samples)
    paths = [member_path(one.uid, "jpg", shard_of(workspace, one.uid)) for one in samples]
    records = [
        Record(f"{one.uid}-caption", "caption", "en", "What is it?", one.caption, path)
        for one, path in zip(samples, paths, strict=True)
    ]
    return str(write_release(root, samples, records).root)


@pytest.fixture(scope="session")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The workspace of a release of numbered pictures, made by the publish stages, that nobody changes."""
    return release_at(tmp_path_factory.mktemp("numbered"))


@pytest.fixture(scope="session")
def object_store() -> Iterator[str]:
    """The address of moto's own server on loopback."""
    pytest.importorskip("s3fs")
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(object_store: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty bucket: `s3://name`."""
    import s3fs

    settings = {"AWS_ENDPOINT_URL": object_store, "AWS_DEFAULT_REGION": "us-east-1", "NO_PROXY": "*"}
    for name, value in {**settings, "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    name = f"training-{secrets.token_hex(8)}"
    s3fs.S3FileSystem().mkdir(name)
    yield f"s3://{name}"
    s3fs.S3FileSystem.clear_instance_cache()


def upload(root: Path | str, place: str) -> str:
    """Copy a workspace to an object store; its path there."""
    import s3fs

    s3fs.S3FileSystem().put(f"{root}/", f"{place}/workspace/", recursive=True)
    return f"{place}/workspace"
