"""Load other people's models safely: weights are read as tensors only, and no code that comes with a model runs."""

from __future__ import annotations

import pickle
from typing import Any, NoReturn

from safetensors import SafetensorError

from mmdata.errors import UserError

UNSAFE_WEIGHTS_ERRORS = (pickle.UnpicklingError, SafetensorError)
"""Raised by loaders (with `weights_only`) where a weights file holds anything but tensors, or is damaged."""


def forbid_remote_code() -> None:
    """Stop transformers, for the rest of this process, from running Python files of a model's folder or repository.

    `trust_remote_code=False` tells transformers' own loaders. But open_clip passes them whatever a model's
    open_clip_config.json says, `trust_remote_code: true` included; so we replace the one function that imports
    such files.
    """
    from transformers import dynamic_module_utils

    dynamic_module_utils.get_class_in_module = _refuse_import


def _refuse_import(class_name: Any, module_path: Any, *_: Any, **__: Any) -> NoReturn:
    raise UserError(
        f"{module_path}: the model comes with its own code ({class_name}), and such code is never run. "
        "Remedy: use a model that open_clip or transformers implements."
    )
