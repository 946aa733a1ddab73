"""Loads img2dataset's modules without the package's `__init__`. Used by `images` and `pictures`."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import types
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from mmdata.media.jpeg_markers import START as JPEG_START
from mmdata.media.jpeg_tail import CUT_SHORT, ends_in_grey, is_cut_short

if TYPE_CHECKING:
    import numpy as np


@cache
def img2dataset_module(module: str) -> Any:
    """A private copy of one of img2dataset's modules, loaded without the package's `__init__`.

    The `__init__` would import torch, pandas and webdataset: seconds, and 400 MB in every worker. Whoever imports
    img2dataset does not see what `resizer` changes in this copy.
    """
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # albumentations asks the web for its newest version otherwise
    os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", "200000000")  # a second check behind download.max_pixels
    modules_of_others = _pop_img2dataset_modules()
    spec = find_spec("img2dataset")
    if spec is None:
        raise ModuleNotFoundError("No module named 'img2dataset'", name="img2dataset")
    package = types.ModuleType("img2dataset")
    package.__path__ = list(spec.submodule_search_locations or ())
    sys.modules["img2dataset"] = package
    try:
        return importlib.import_module(f"img2dataset.{module}")
    finally:
        _pop_img2dataset_modules()
        sys.modules.update(modules_of_others)


def _pop_img2dataset_modules() -> dict[str, types.ModuleType]:
    """Remove img2dataset's modules from `sys.modules`, and return them."""
    names = [name for name in sys.modules if name == "img2dataset" or name.startswith("img2dataset.")]
    return {name: sys.modules.pop(name) for name in names}


def _decode_whole(file: np.ndarray, flags: int) -> np.ndarray | None:
    """OpenCV's `imdecode`, except that a JPEG that breaks off is an error, and not half grey."""
    import cv2

    pixels = cv2.imdecode(file, flags)
    if (
        pixels is not None
        and ends_in_grey(pixels)
        and file[:2].tobytes() == JPEG_START
        and is_cut_short(file.tobytes())
    ):
        raise ValueError(CUT_SHORT)
    return pixels


@cache
def resizer(image_size: int, quality: int) -> Any:
    """img2dataset's Resizer. It makes a JPEG whose shorter side is `image_size` pixels, and enlarges nothing."""
    module = img2dataset_module("resizer")
    # The original redirects the process's stdout and stderr to /dev/null around each image, to silence libjpeg. With
    # several threads they may stay redirected, which is worse than a warning on stderr.
    module.SuppressStdoutStderr = contextlib.nullcontext
    module.cv2 = types.SimpleNamespace(**{**vars(module.cv2), "imdecode": _decode_whole})
    return module.Resizer(
        image_size=image_size,
        resize_mode="keep_ratio",
        resize_only_if_bigger=True,
        encode_quality=quality,
        encode_format="jpg",
    )
