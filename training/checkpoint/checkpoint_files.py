"""The files of a checkpoint, read so that one from elsewhere can hold numbers and nothing that runs.

torch.distributed.checkpoint unpickles a checkpoint's `.metadata` and the values that are no tensors. Here the first may
name only the classes that torch itself writes there, and the second are read with `weights_only`.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta
from torch.distributed.checkpoint.planner import ReadItem

from mmdata.errors import DataError

METADATA = ".metadata"
_ALLOWED = {
    "torch.distributed.checkpoint.metadata": {
        *("Metadata", "TensorStorageMetadata", "BytesStorageMetadata", "TensorProperties", "ChunkStorageMetadata"),
        *("MetadataIndex", "StorageMeta", "_MEM_FORMAT_ENCODING"),
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.serialization": {"_get_layout"},
    "pathlib": {"PosixPath"},
    "collections": {"OrderedDict"},
}


def load(state: dict[str, Any], checkpoint: Path, alone: bool = False) -> None:
    """Load the tensors and values of a state that a checkpoint has, in place.

    Args:
        alone: this process loads for itself, whether or not it is one of several.

    Raises:
        DataError: the checkpoint is broken, or holds what torch never writes.
    """
    try:
        dcp.load(state, storage_reader=CheckpointReader(checkpoint), planner=LoadPlanner(), no_dist=alone)
    except dcp.CheckpointException as error:
        first = next((failure for failure, _ in error.failures.values()), error)
        told = str(first) if isinstance(first, DataError) else f"{type(first).__name__}: {first}"
        raise DataError(f"{checkpoint}: cannot be read ({told}). Remedy: delete this checkpoint.") from None


class CheckpointReader(dcp.FileSystemReader):
    """Reads a checkpoint's folder. Raises DataError where it holds what torch never writes."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        del args, kwargs  # a rank, where each has metadata of its own: ours has one for all
        path = Path(self.path) / METADATA
        try:
            with path.open("rb") as file:
                found = _Unpickler(file).load()
        except (
            pickle.UnpicklingError,
            EOFError,
            AttributeError,
            ImportError,
            IndexError,
            TypeError,
            ValueError,
        ) as error:
            raise DataError(f"{path}: is not a checkpoint's ({error}).") from None
        if not isinstance(found, Metadata):
            raise DataError(f"{path}: is not a checkpoint's")
        for info in (found.storage_data or {}).values():
            if Path(info.relative_path).name != info.relative_path:
                raise DataError(f"{path}: names a file elsewhere, {info.relative_path[:200]!r}")
        if found.storage_meta is None:
            found.storage_meta = StorageMeta()
        found.storage_meta.load_id = self.load_id
        return found


class LoadPlanner(dcp.DefaultLoadPlanner):
    """Loads values that are no tensors (a learning rate) if they are plain ones."""

    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        try:
            torch.load(value, weights_only=True)
        except pickle.UnpicklingError as error:
            name = read_item.dest_index.fqn
            line = str(error).splitlines()[0]
            raise DataError(f"checkpoint: {name} is no plain value, and is not unpickled ({line})") from None
        value.seek(0)
        super().load_bytes(read_item, value)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name in _ALLOWED.get(module, ()):
            return super().find_class(module, name)
        if module == "torch" and (name == "Size" or isinstance(getattr(torch, name, None), torch.dtype)):
            return getattr(torch, name)
        raise pickle.UnpicklingError(f"it names {module}.{name}, which torch never writes there")
