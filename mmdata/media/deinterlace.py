"""Makes whole pictures of interlaced film, whose frames hold two moments in alternate lines."""

from __future__ import annotations

from collections import deque
from fractions import Fraction
from typing import Any

import numpy as np

from mmdata.media.colour import reformatted

FILTER = "bwdif", "mode=send_frame:parity=auto:deint=all"
BLOCK = 16  # pixels; a block is judged as a whole
MIN_COMBED_SHARE = 0.002  # of the blocks of a frame; fewer are noise
MIN_COMBING = 4.0  # of 255: what is weaker is not seen
MIN_CHANGE = 2.0  # of 255 from frame to frame; what stands still has no combs, but may have fine lines
JUDGED_WIDTH = 320  # pixels; wider frames are narrowed to about that, which keeps their lines
CHECKED_FRAMES, CHECK_EVERY, MAX_CHECKS = 6, 25, 60  # of film that is not marked: the first ones, then one in so many
MIN_COMBED_CHECKS = 2  # so many frames with combs make the film interlaced, whatever its marks say
COMBING_RATIO = 1.5  # how much more a combed line differs from its neighbours than from the next lines of its own field


class Deinterlacer:
    """Takes decoded frames in their order and gives them back, a frame late if the film is interlaced.

    It is if its frames are marked so, or if two of those that are looked at have combs. Frames of interlaced film that
    are whole stay as they are. Times stay.
    """

    def __init__(self) -> None:
        self._frame_before: Any = None
        self._unmarked_frames = 0  # since the last seek
        self._checks = self._combed_checks = 0  # of frames that are not marked
        self._graph: Any = None
        self._format: tuple[int, int, str] | None = None  # size and pixel format of the graph's input
        self._waiting: deque[tuple[Any, np.ndarray]] = deque()  # frames that the filter has not given back, and luma
        self._luma_before: np.ndarray | None = None

    def frames(self, frame: Any) -> list[Any]:
        """The frames that are ready when one more was decoded."""
        may_be = not frame.format.is_rgb and min(frame.width, frame.height) >= 2 * BLOCK  # a dithered GIF looks combed
        is_interlaced = may_be and (frame.interlaced_frame or self._has_combs(frame))
        self._frame_before = frame
        if not is_interlaced:
            return [*self.flush(), frame]
        ready = []
        format_of_frame = (frame.width, frame.height, frame.format.name)
        if format_of_frame != self._format:
            ready = self.flush()
            self._open(frame)
            self._format = format_of_frame
        self._waiting.append((frame, _luma(frame)))
        self._graph.vpush(frame)
        return ready + self._pull()

    def flush(self) -> list[Any]:
        """The frames that still wait, at the end of the film."""
        if self._graph is None:
            return []
        self._graph.vpush(None)
        ready = self._pull()
        self._graph = self._format = self._luma_before = None
        self._waiting.clear()
        return ready

    def forget_frames(self) -> None:
        """Begin anew at another place of the same film."""
        self.flush()
        self._frame_before, self._unmarked_frames = None, 0

    def _has_combs(self, frame: Any) -> bool:
        """Whether a film whose frames are not marked is interlaced all the same, as far as is known at this frame."""
        before = self._frame_before
        self._unmarked_frames += 1
        is_due = self._unmarked_frames <= CHECKED_FRAMES or self._unmarked_frames % CHECK_EVERY == 0
        if self._combed_checks < MIN_COMBED_CHECKS and is_due and before is not None and self._checks < MAX_CHECKS:
            self._checks += 1
            if (before.width, before.height) == (frame.width, frame.height):
                self._combed_checks += is_combed(_luma(frame), _luma(before))
        return self._combed_checks >= MIN_COMBED_CHECKS

    def _open(self, frame: Any) -> None:
        from av.filter import Graph

        self._graph = Graph()
        self._graph.threads = 1  # each core has a decoder process of its own
        source = self._graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base or Fraction(1, 1000)
        )
        deinterlace, sink = self._graph.add(*FILTER), self._graph.add("buffersink")
        source.link_to(deinterlace)
        deinterlace.link_to(sink)
        self._graph.configure()

    def _pull(self) -> list[Any]:
        import av

        ready = []
        while self._waiting:
            try:
                filtered = self._graph.vpull()
            except (av.BlockingIOError, av.EOFError):
                break
            original, luma = self._waiting.popleft()
            luma_after = self._waiting[0][1] if self._waiting else luma
            if is_combed(luma, luma_after if self._luma_before is None else self._luma_before):
                filtered.pts, filtered.time_base = original.pts, original.time_base
                ready.append(filtered)
            else:
                ready.append(original)
            self._luma_before = luma
        return ready


def is_combed(luma: np.ndarray, other_luma: np.ndarray) -> bool:
    """Whether the lines of a frame show two moments.

    Where something moves, each line then differs more from the lines beside it than from the next ones of its field.

    Args:
        luma: int16 H,W in 0..255.
        other_luma: of the frame before or after.
    """
    middle = luma[2:-2]
    beside = np.abs(2 * middle - luma[1:-3] - luma[3:-1])
    in_field = np.abs(2 * middle - luma[:-4] - luma[4:])
    combing, detail, change = (_block_means(values) for values in (beside, in_field, np.abs(middle - other_luma[2:-2])))
    combed = (combing > 2 * MIN_COMBING) & (combing > COMBING_RATIO * detail) & (change > MIN_CHANGE)
    return float(combed.mean()) >= MIN_COMBED_SHARE


def _luma(frame: Any) -> np.ndarray:
    width = frame.width // max(1, frame.width // JUDGED_WIDTH)
    return reformatted(frame, "gray", (width, frame.height)).astype(np.int16)


def _block_means(values: np.ndarray) -> np.ndarray:
    import cv2

    rows, columns = values.shape[0] // BLOCK, values.shape[1] // BLOCK
    whole_blocks = values[: rows * BLOCK, : columns * BLOCK].astype(np.float32)
    return cv2.resize(whole_blocks, (columns, rows), interpolation=cv2.INTER_AREA)
