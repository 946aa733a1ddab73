"""Reads and writes the files of a checkpoint. A checkpoint from elsewhere can hold data, but no code that runs.

torch.distributed.checkpoint unpickles a checkpoint's `.metadata` file, and all values that are not tensors. Here
`.metadata` may name only the classes that torch itself writes there, and the values are read with `weights_only`.
"""

from __future__ import annotations

import io
import pickle
import warnings
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta
from torch.distributed.checkpoint.planner import ReadItem
from torch.distributed.checkpoint.state_dict import StateDictOptions

from mmdata.errors import DataError
from mmdata.storage.digests import SUFFIX, changed_file, write_digests

METADATA_FILE = ".metadata"
REMEDY = "Remedy: delete this checkpoint; training continues from the one before."
OPTIMIZER_OPTIONS = StateDictOptions(flatten_optimizer_state_dict=True)
"""The optimiser's state by parameter name, because the ranks of a pipeline hold different parameters."""
# Said at each save and load of a single process. Threads save, so a filter around the calls would not do.
warnings.filterwarnings("ignore", "torch.distributed is disabled, unavailable or uninitialized", UserWarning)
_ALLOWED_CLASSES = {
    "torch.distributed.checkpoint.metadata": {
        *("Metadata", "TensorStorageMetadata", "BytesStorageMetadata", "TensorProperties", "ChunkStorageMetadata"),
        *("MetadataIndex", "StorageMeta", "_MEM_FORMAT_ENCODING"),
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.serialization": {"_get_layout"},
    "collections": {"OrderedDict"},
}
_PATH_MODULES = ("pathlib", "pathlib._local")  # up to Python 3.12, and in Python 3.13


def load_state(state: dict[str, Any], checkpoint: Path, single_process: bool = False) -> None:
    """Load the tensors and values named in a state from a checkpoint, in place.

    Args: single_process: this process loads without the others, although it may be one of several.
    Raises DataError: the checkpoint is broken or was changed, or holds something that torch never writes.
    """
    _require_unchanged(checkpoint, single_process)
    try:
        dcp.load(state, storage_reader=CheckpointReader(checkpoint), planner=LoadPlanner(), no_dist=single_process)
    except dcp.CheckpointException as error:
        cause = next((failure for failure, _ in error.failures.values()), error)
        reason = str(cause) if isinstance(cause, DataError) else f"{type(cause).__name__}: {cause}"
        raise DataError(f"{checkpoint}: cannot be read ({reason}). {REMEDY}") from None


def write_own_digests(draft: Path) -> None:
    """Write a digest beside each file that this process wrote; torch numbers the files by rank."""
    rank = dist.get_rank() if dist.is_initialized() else 0
    write_digests(draft.glob(f"__{rank}_*.distcp"))


def _require_unchanged(checkpoint: Path, single_process: bool) -> None:
    """Compare the files of a checkpoint with their digests; several processes share the reading."""
    files = [digest.with_name(digest.name.removesuffix(SUFFIX)) for digest in sorted(checkpoint.glob(f"*{SUFFIX}"))]
    if single_process or not dist.is_initialized():
        problems = [changed_file(files)]
    else:
        problems = [None] * dist.get_world_size()
        dist.all_gather_object(problems, changed_file(files[dist.get_rank() :: dist.get_world_size()]))
    if problem := next(filter(None, problems), None):
        raise DataError(f"{problem}. {REMEDY}")


class CheckpointWriter(dcp.FileSystemWriter):
    """Writes a checkpoint's folder, and records the folder as text.

    torch would pickle a `Path`, whose class has another module name in each Python version.
    """

    def storage_meta(self) -> StorageMeta | None:
        recorded = super().storage_meta()
        return recorded and replace(recorded, checkpoint_id=str(recorded.checkpoint_id))


class CheckpointReader(dcp.FileSystemReader):
    """Reads a checkpoint's folder. Raises DataError if it holds something that torch never writes."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        del args, kwargs  # the rank, for checkpoints with one metadata file per rank: ours have one for all ranks
        path = Path(self.path) / METADATA_FILE
        try:
            with path.open("rb") as file:
                metadata = _MetadataUnpickler(file).load()
        except (pickle.PickleError, EOFError, AttributeError, ImportError, IndexError, TypeError, ValueError) as error:
            raise DataError(f"{path}: is not the metadata of a checkpoint ({error})") from None
        if not isinstance(metadata, Metadata):
            raise DataError(f"{path}: is not the metadata of a checkpoint (it holds a {type(metadata).__name__})")
        for info in (metadata.storage_data or {}).values():
            if Path(info.relative_path).name != info.relative_path:
                raise DataError(f"{path}: names a file outside the checkpoint, {info.relative_path[:200]!r}")
        if metadata.storage_meta is None:
            metadata.storage_meta = StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


class LoadPlanner(dcp.DefaultLoadPlanner):
    """Loads a value that is not a tensor, such as a learning rate, only if `weights_only` accepts it."""

    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        try:
            torch.load(value, weights_only=True)
        except pickle.UnpicklingError as error:
            name = read_item.dest_index.fqn
            reason = str(error).splitlines()[0]
            raise DataError(f"checkpoint: {name} is not a plain value, so it is not unpickled ({reason})") from None
        value.seek(0)
        super().load_bytes(read_item, value)


class _MetadataUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module in _PATH_MODULES and name == "PosixPath":
            return PurePosixPath  # older checkpoints record their folder as a path; no file is opened through it
        if name in _ALLOWED_CLASSES.get(module, ()):
            return super().find_class(module, name)
        if module == "torch" and (name == "Size" or isinstance(getattr(torch, name, None), torch.dtype)):
            return getattr(torch, name)
        raise pickle.UnpicklingError(f"it names {module}.{name}, which torch never writes there")
