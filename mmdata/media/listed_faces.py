"""The boxes of faces that a source lists, such as `face_bboxes` of DataComp."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator

from mmdata.samples import own_columns

Box = tuple[float, float, float, float]
"""Left, top, right and bottom as fractions of the picture's sides."""

FACE_BBOXES = "face_bboxes"

MAX_FRACTION = 1.5
"""A box may reach beyond the picture; one with larger numbers is in pixels, of a size that we do not know."""


def listed_faces(extra: str | None) -> Iterator[Box]:
    """The faces in the column `extra` of a row, within the picture; what is no box of fractions is left out."""
    boxes = own_columns(extra).get(FACE_BBOXES) if extra and FACE_BBOXES in extra else None
    if isinstance(boxes, str):  # of a CSV file
        try:
            boxes = json.loads(boxes)
        except (ValueError, RecursionError):
            return
    for box in boxes if isinstance(boxes, list) else ():
        if isinstance(box, list) and len(box) == 4 and all(_is_number(side) for side in box):
            left, top, right, bottom = (min(max(float(side), 0.0), 1.0) for side in box)
            if left < right and top < bottom and max(box) <= MAX_FRACTION:
                yield left, top, right, bottom


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
