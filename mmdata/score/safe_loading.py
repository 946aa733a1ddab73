"""Load other people's models safely: weights are read as tensors only, and no code that comes with a model runs."""

from __future__ import annotations

import pickle
from typing import Any, NoReturn

from safetensors import SafetensorError

from mmdata.errors import UserError, first_line

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


def load_pretrained(name: str, key: str, processor_class: Any, model_class: Any, **options: Any) -> tuple[Any, Any]:
    """Processor and model of transformers in evaluation mode.

    Args:
        name: a folder, or the id of a model on the Hugging Face hub.
        key: the setting that names them, for the error.
        options: of `from_pretrained` of the model.

    Raises:
        UserError: there is no such model, or it is of another kind.
    """
    try:
        processor = processor_class.from_pretrained(name, trust_remote_code=False)
        model = model_class.from_pretrained(name, weights_only=True, trust_remote_code=False, **options)
    except (OSError, ValueError, KeyError, *UNSAFE_WEIGHTS_ERRORS) as error:
        raise UserError(
            f"{key}: {name!r} cannot be loaded ({first_line(error)}). "
            "Remedy: give a folder or a Hugging Face hub id of such a model."
        ) from None
    return processor, model.eval()


def _refuse_import(class_name: Any, module_path: Any, *_: Any, **__: Any) -> NoReturn:
    raise UserError(
        f"{module_path}: the model comes with its own code ({class_name}), and such code is never run. "
        "Remedy: use a model that open_clip or transformers implements."
    )
