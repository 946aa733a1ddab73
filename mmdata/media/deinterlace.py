"""Makes whole pictures of interlaced film, whose frames hold two moments in alternate lines."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

FILTER = "bwdif", "mode=send_frame:parity=auto:deint=all"
BLOCK = 16  # pixels; a block is judged as a whole
MIN_COMBED_SHARE = 0.002  # of the blocks of a frame; fewer are noise
MIN_COMBING = 4.0  # of 255: what is weaker is not seen
COMBING_RATIO = 1.5  # how much more a combed line differs from its neighbours than from the next lines of its own field


class Deinterlacer:
    """Takes decoded frames in their order and gives them back, a frame late while they are marked as interlaced.

    Frames that are marked so but are whole, as a film that is sent as interlaced video, stay as they are. Times stay.
    """

    def __init__(self) -> None:
        self._graph: Any = None
        self._format: tuple[int, int, str] | None = None  # size and pixel format of the graph's input
        self._waiting: deque[Any] = deque()  # frames that the filter has not given back

    def frames(self, frame: Any) -> list[Any]:
        """The frames that are ready when one more was decoded."""
        if not frame.interlaced_frame:
            return [*self.flush(), frame]
        ready = []
        format_of_frame = (frame.width, frame.height, frame.format.name)
        if format_of_frame != self._format:
            ready = self.flush()
            self._open(frame)
            self._format = format_of_frame
        self._waiting.append(frame)
        self._graph.vpush(frame)
        return ready + self._pull()

    def flush(self) -> list[Any]:
        """The frames that still wait, at the end of the film."""
        if self._graph is None:
            return []
        self._graph.vpush(None)
        ready = self._pull()
        self._graph = self._format = None
        self._waiting.clear()
        return ready

    def _open(self, frame: Any) -> None:
        from av.filter import Graph

        self._graph = Graph()
        source = self._graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
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
            original = self._waiting.popleft()
            if is_combed(original):
                filtered.pts, filtered.time_base = original.pts, original.time_base
                ready.append(filtered)
            else:
                ready.append(original)
        return ready


def is_combed(frame: Any) -> bool:
    """Whether the lines of a decoded frame show two moments.

    Where something moves, each line then differs more from the lines beside it than from the next ones of its field.
    """
    luma = frame.reformat(format="gray").to_ndarray().astype(np.int16)
    height, width = luma.shape[0] // BLOCK * BLOCK, luma.shape[1] // BLOCK * BLOCK
    if height < 2 * BLOCK or not width:
        return False
    lines = luma[:, :width]
    middle = lines[2:-2]
    beside = np.abs(2 * middle - lines[1:-3] - lines[3:-1])
    in_field = np.abs(2 * middle - lines[:-4] - lines[4:])
    combing, detail = (_block_means(values) for values in (beside, in_field))
    combed = (combing > 2 * MIN_COMBING) & (combing > COMBING_RATIO * detail)
    return float(combed.mean()) >= MIN_COMBED_SHARE


def _block_means(values: np.ndarray) -> np.ndarray:
    rows = values.shape[0] // BLOCK
    blocks = values[: rows * BLOCK].reshape(rows, BLOCK, values.shape[1] // BLOCK, BLOCK)
    return np.asarray(blocks.mean((1, 3)))
