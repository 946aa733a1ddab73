"""What makes captions: the interface of a captioner, and how `recaption.captioner` names one."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

from mmdata.config import Recaption
from mmdata.engine.stage_fingerprints import captioner_files
from mmdata.errors import UserError
from mmdata.fingerprint import fingerprint

TOO_LONG = "too_long"
EMPTY = "empty"
UNDECODABLE = "undecodable"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model says of a picture, or why that is no caption.

    Args:
        problem: `too_long` (the text had not ended after `recaption.max_tokens`) or `undecodable`; None: it is one.
    """

    text: str = ""
    problem: str | None = None


class Captioner(Protocol):
    """A model that describes pictures. It must give the same answer to the same picture and prompt every time.

    Attributes:
        name: as tables, samples and manifests show it.
        fingerprint: of its weights and whatever else decides its answers; answers of other fingerprints are not kept.
    """

    name: str
    fingerprint: str

    def answers(self, pictures: Sequence[bytes], prompts: Sequence[str | None]) -> list[Answer]:
        """An answer for each picture.

        Args:
            pictures: encoded, as they are stored: JPEG, PNG or WebP.
            prompts: as many; None: the model's own request for a caption.
        """


Load = Callable[[Recaption], Captioner]
"""Makes a captioner from the settings; it raises UserError if it cannot."""


_lock = threading.Lock()
_loaded: dict[str, Captioner] = {}


def load_captioner(settings: Recaption) -> Captioner:
    """The captioner that the settings name; loaded once in a process, and kept until another one is loaded.

    Raises:
        UserError: the function or the model cannot be loaded.
    """
    key = fingerprint(settings, captioner_files(settings))
    with _lock:
        if key not in _loaded:
            _loaded.clear()  # a device may not hold two models
            _loaded[key] = _function(settings.captioner)(settings)
        return _loaded[key]


def _function(name: str) -> Load:
    if name == "transformers":
        from mmdata.score.caption_models import TransformersCaptioner

        return TransformersCaptioner
    module, _, function = name.partition(":")
    try:
        return cast(Load, getattr(importlib.import_module(module), function))
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"recaption.captioner: {name!r} cannot be imported ({error}). Remedy: `transformers`, or the "
            "module:function of a function that takes the section `recaption` and returns a captioner."
        ) from None
