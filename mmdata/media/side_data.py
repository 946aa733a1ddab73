"""Reads what a file says of one decoded frame beside its pixels or samples."""

from __future__ import annotations

from typing import Any


def side_data(frame: Any, name: str) -> bytes | None:
    """The bytes of FFmpeg's side data of a name, such as `DISPLAYMATRIX`; None if the frame has none.

    PyAV reads no side data of a frame that has a kind which it does not know, such as EXIF. It counts as none then.
    """
    try:
        data = frame.side_data.get(name)
    except ValueError:
        return None
    return None if data is None else bytes(data)
