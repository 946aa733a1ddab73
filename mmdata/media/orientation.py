"""How a frame is turned and mirrored before it is shown: the display matrix of its file (ISO 14496-12, 8.3.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mmdata.media.side_data import side_data

MATRIX_BYTES = 36  # nine int32, in rows


@dataclass(frozen=True, slots=True)
class Orientation:
    """One of the eight ways to show a picture: its axes may be swapped, then each may be mirrored."""

    swaps_axes: bool = False
    mirrors_x: bool = False
    mirrors_y: bool = False

    def upright(self, pixels: np.ndarray) -> np.ndarray:
        """A picture H,W,C as it is shown; a view of the same memory."""
        if self.swaps_axes:
            pixels = pixels.swapaxes(0, 1)
        if self.mirrors_x:
            pixels = pixels[:, ::-1]
        return pixels[::-1] if self.mirrors_y else pixels


TURNS = (
    Orientation(),
    Orientation(True, mirrors_y=True),
    Orientation(False, True, True),
    Orientation(True, mirrors_x=True),
)
"""By quarters of a turn counterclockwise."""


def orientation(frame: Any) -> Orientation:
    """How a decoded frame is shown.

    A matrix may also scale, shear or turn by any angle; the nearest of the eight orientations is taken then. A matrix
    of zeros says nothing.
    """
    data = side_data(frame, "DISPLAYMATRIX")
    if data is None or len(data) < MATRIX_BYTES:
        return TURNS[round(frame.rotation / 90) % 4]
    # x' = a x + c y, y' = b x + d y, in coordinates that grow to the right and downwards
    a, b, _, c, d = (int(value) for value in np.frombuffer(data, np.int32)[:5])
    if abs(b) + abs(c) > abs(a) + abs(d):
        return Orientation(True, mirrors_x=c < 0, mirrors_y=b < 0)
    return Orientation(False, mirrors_x=a < 0, mirrors_y=d < 0)
