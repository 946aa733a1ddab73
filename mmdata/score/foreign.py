"""Models from elsewhere: their weights are read as tensors, and no code that lies beside them runs."""

from __future__ import annotations

import pickle
from typing import Any, NoReturn

from safetensors import SafetensorError

from mmdata.errors import UserError

NOT_TENSORS = (pickle.UnpicklingError, SafetensorError)
"""What is raised where a weights file holds more than tensors (`weights_only` does not unpickle it), or none."""


def refuse_code() -> None:
    """From here on transformers runs no Python file out of a model's folder or repository in this process.

    `trust_remote_code=False` says so to its own loaders. But open_clip hands them whatever a model's
    open_clip_config.json says, `trust_remote_code: true` included; so the one function that imports such files is
    replaced.
    """
    from transformers import dynamic_module_utils

    dynamic_module_utils.get_class_in_module = _refused


def _refused(class_name: Any, module_path: Any, *_: Any, **__: Any) -> NoReturn:
    raise UserError(
        f"{module_path}: the model brings code of its own ({class_name}), and no such code is run. Remedy: a model "
        "that open_clip or transformers knows by itself."
    )
