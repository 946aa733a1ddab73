"""A checkpoint's metadata names no class of pathlib, and is read whichever Python version wrote it."""

from __future__ import annotations

import pickle
import pickletools
import warnings
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import nn

from mmdata.errors import DataError
from mmdata.fingerprint import file_sha256
from training.checkpoint.checkpoint_files import METADATA_FILE, CheckpointReader
from training.checkpoint.checkpoints import Progress, load_weights
from training.checkpoint.saver import save


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(3, 2)


def save_model(folder: Path, model: nn.Module) -> Path:
    return save(folder, model, None, Progress("align", 1, 8, "release", "digest", {}), keep=1)


def save_without_digests(folder: Path, model: nn.Module) -> Path:
    """A checkpoint as older versions wrote it."""
    checkpoint = save_model(folder, model)
    for digest in checkpoint.glob("*.sha256"):
        digest.unlink()
    return checkpoint


def test_metadata_is_written_without_a_class_of_pathlib(tmp_path: Path, model: nn.Module) -> None:
    metadata = (save_model(tmp_path, model) / METADATA_FILE).read_bytes()
    strings = [argument for _, argument, _ in pickletools.genops(metadata) if isinstance(argument, str)]
    assert any("torch.distributed.checkpoint" in string for string in strings)
    assert not any(string.startswith("pathlib") for string in strings)


@pytest.mark.parametrize("module", ["pathlib", "pathlib._local"])
def test_metadata_with_a_path_is_read_from_any_python_version(tmp_path: Path, model: nn.Module, module: str) -> None:
    """Python 3.13 pickles a path as `pathlib._local.PosixPath`, older ones as `pathlib.PosixPath`."""
    checkpoint = save_without_digests(tmp_path, model)
    metadata = CheckpointReader(checkpoint).read_metadata()
    assert metadata.storage_meta is not None
    metadata.storage_meta.checkpoint_id = checkpoint
    pickled = pickle.dumps(metadata, protocol=2)  # names classes as lines of text, which can be replaced
    for written_here in (b"cpathlib\nPosixPath\n", b"cpathlib._local\nPosixPath\n"):
        pickled = pickled.replace(written_here, f"c{module}\nPosixPath\n".encode())
    assert f"c{module}\nPosixPath\n".encode() in pickled
    (checkpoint / METADATA_FILE).write_bytes(pickled)
    loaded = nn.Linear(3, 2)
    assert load_weights(checkpoint, loaded, lambda _: True) == []
    assert torch.equal(loaded.weight, model.weight)


def test_a_checkpoint_that_torch_wrote_alone_is_read(tmp_path: Path, model: nn.Module) -> None:
    """Checkpoints written before CheckpointWriter existed hold a path of the running Python."""
    checkpoint = save_without_digests(tmp_path, model)
    with warnings.catch_warnings(action="ignore"):
        dcp.save({"model": model.state_dict()}, checkpoint_id=checkpoint)
    loaded = nn.Linear(3, 2)
    assert load_weights(checkpoint, loaded, lambda _: True) == []
    assert torch.equal(loaded.weight, model.weight)


@pytest.mark.parametrize("content", [b"", b"no pickle", pickle.dumps({"not": "metadata"})])
def test_broken_metadata_is_named(tmp_path: Path, model: nn.Module, content: bytes) -> None:
    checkpoint = save_model(tmp_path, model)
    (checkpoint / METADATA_FILE).write_bytes(content)
    with pytest.raises(DataError, match=r"\.metadata: is not the metadata of a checkpoint"):
        load_weights(checkpoint, nn.Linear(3, 2), lambda _: True)


def test_a_byte_that_changed_on_the_disk_is_never_loaded(tmp_path: Path, model: nn.Module) -> None:
    """torch reads a changed tensor as it is: the run would go on with other weights."""
    checkpoint = save_model(tmp_path, model)
    (tensors,) = checkpoint.glob("*.distcp")
    content = bytearray(tensors.read_bytes())
    content[content.index(model.weight.detach().numpy().tobytes())] ^= 1
    tensors.write_bytes(content)
    loaded = nn.Linear(3, 2)
    before = loaded.weight.clone()
    with pytest.raises(DataError, match=rf"{tensors.name}: its bytes have changed.*Remedy: delete this checkpoint"):
        load_weights(checkpoint, loaded, lambda _: True)
    assert torch.equal(loaded.weight, before)


@pytest.mark.parametrize("name", ["meta.json", METADATA_FILE, "__0_0.distcp"])
def test_each_file_of_a_checkpoint_has_a_digest(tmp_path: Path, model: nn.Module, name: str) -> None:
    checkpoint = save_model(tmp_path, model)
    assert (checkpoint / f"{name}.sha256").read_text().split()[0] == file_sha256(checkpoint / name)


def test_the_file_of_a_missing_rank_is_named(tmp_path: Path, model: nn.Module) -> None:
    checkpoint = save_model(tmp_path, model)
    (checkpoint / "__0_0.distcp").unlink()
    with pytest.raises(DataError, match=r"__0_0\.distcp is missing\. Remedy"):
        load_weights(checkpoint, nn.Linear(3, 2), lambda _: True)
