"""Which share of a picture is covered by text: PaddleOCR's text detector PP-OCRv4, by onnxruntime.

The package rapidocr ships the weights (Apache-2.0). Its later versions ship PP-OCRv6, which takes whole pictures
without text for text (docs/decisions.md). The network is of the kind "differentiable binarization" (Liao et al. 2020):
it gives for each pixel the probability that it lies in the shrunken core of a line of text. Each core is
grown back by the paper's formula, d = A r / L.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmdata.media.packaged_file import PackagedFile
from mmdata.score.onnx_model import OnnxModel
from mmdata.score.preprocess import Preprocess, resized_size

MODEL = PackagedFile(
    "rapidocr",
    "rapidocr",
    "models/ch_PP-OCRv4_det_infer.onnx",
    "d2a7720d45a54257208b1e13e36a8479894cb74155a5efe29462512d42f49da9",
    "scores",
)
SIDE_PX = 640  # longer side of the picture that the network sees
MULTIPLE_PX = 32  # of which both sides must be multiples
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of the training
MIN_PROBABILITY = 0.3  # of a pixel that belongs to a line of text
MIN_LINE_PROBABILITY = 0.5  # mean over the line; these and the next are the settings of rapidocr
GROWTH = 1.6  # r of the formula
MIN_SIDE_PX = 3  # smaller cores are noise
CODE_VERSION = 1


class TextAreaScore:
    """Share of a picture that lines of text cover, in [0, 1]. Of a clip, the mean over its frames.

    Raises:
        UserError: the package is not installed, or its file is not the pinned one.
    """

    name = "text_area"
    fingerprint = f"{CODE_VERSION} {MODEL.sha256}"
    preprocess = Preprocess((SIDE_PX, SIDE_PX), interpolation="bilinear", resize_mode="longest")
    batch_size = 8

    def __init__(self, threads: int) -> None:
        self._model = OnnxModel(MODEL, threads)

    def of_pictures(self, pixels: np.ndarray, sizes: Sequence[tuple[int, int]]) -> np.ndarray:
        """Score pictures.

        Args:
            pixels: uint8 N,640,640,3 RGB, padded, as `preprocess` says.
            sizes: height and width of the stored pictures, without the padding.

        Returns:
            float32 N.
        """
        return np.array([self._share(*pair) for pair in zip(pixels, sizes, strict=True)], np.float32)

    def _share(self, pixels: np.ndarray, size: tuple[int, int]) -> float:
        """The share of one picture. It goes to the network without padding, whose edges look like lines of text."""
        import cv2

        height, width = resized_size(*size, self.preprocess)
        top, left = (SIDE_PX - height) // 2, (SIDE_PX - width) // 2
        sides = [max(MULTIPLE_PX, round(side / MULTIPLE_PX) * MULTIPLE_PX) for side in (width, height)]
        picture = cv2.resize(pixels[top : top + height, left : left + width, ::-1].copy(), sides)
        normalised = (picture.astype(np.float32) / 255 - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
        return float(text_mask(self._model(normalised.transpose(2, 0, 1)[None])[0, 0]).mean())

    @staticmethod
    def of_clip(scores: np.ndarray) -> float:
        """The score of a clip, from those of its frames."""
        return float(scores.mean())


def text_mask(probabilities: np.ndarray) -> np.ndarray:
    """Which pixels lie in a line of text: bool H,W, from the network's map of probabilities, float32 H,W."""
    import cv2

    mask = np.zeros(probabilities.shape, np.uint8)
    core = (probabilities > MIN_PROBABILITY).astype(np.uint8)
    contours, _ = cv2.findContours(core, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    for contour in contours:
        middle, (width, height), angle = cv2.minAreaRect(contour)
        if min(width, height) < MIN_SIDE_PX:
            continue
        inside = np.zeros(probabilities.shape, np.uint8)
        cv2.fillPoly(inside, [np.intp(cv2.boxPoints((middle, (width, height), angle)))], 1)
        if cv2.mean(probabilities, inside)[0] < MIN_LINE_PROBABILITY:
            continue
        distance = width * height * GROWTH / (2 * (width + height))
        grown = (middle, (width + 2 * distance, height + 2 * distance), angle)
        cv2.fillPoly(mask, [np.intp(cv2.boxPoints(grown))], 1)
    return mask.astype(bool)
