"""The base of a stage's checkpoints: the weights that the stage does not train, written once.

Each checkpoint names its base, a folder beside it whose name holds a hash of its content.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from torch import nn

from mmdata.errors import DataError
from mmdata.storage.digests import SUFFIX

PREFIX = "base-"
_HASH_DIGITS = 16


def frozen_names(model: nn.Module) -> set[str]:
    """Names of the parameters that are not trained, as they are in a checkpoint. Args: model: DDP may be around it."""
    inner: nn.Module = getattr(model, "module", model)
    # tied matrices have two names
    return {name for name, weight in inner.named_parameters(remove_duplicate=False) if not weight.requires_grad}


def base_name(folder: Path) -> str:
    """The name of a base by its content, from the digests of its tensor files."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob(f"*.distcp{SUFFIX}")):
        digest.update(path.read_bytes())
    return PREFIX + digest.hexdigest()[:_HASH_DIGITS]


def base_of(checkpoint: Path, name: str | None) -> Path | None:
    """The base of a checkpoint. Args: name: as the checkpoint's `meta.json` has it; None: it has no base.

    Raises DataError: the base is missing, or is another one.
    """
    if name is None:
        return None
    folder = checkpoint.parent / Path(name).name
    if not folder.is_dir():
        raise DataError(
            f"{checkpoint}: holds only the weights that were trained; the others are in {folder}, which is missing. "
            f"Remedy: copy {folder.name} from the folder of checkpoints where it was trained."
        )
    if base_name(folder) != folder.name:
        raise DataError(
            f"{folder}: is not the base that {checkpoint.name} was trained on, because its digests have changed. "
            f"Remedy: copy {folder.name} from the folder of checkpoints where it was trained."
        )
    return folder
