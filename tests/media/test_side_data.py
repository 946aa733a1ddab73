"""Side data of decoded frames."""

from __future__ import annotations

from mmdata.media.side_data import side_data


class _Frame:
    def __init__(self, kinds: dict[str, bytes], is_readable: bool = True) -> None:
        self._kinds, self._is_readable = kinds, is_readable

    @property
    def side_data(self) -> dict[str, bytes]:
        if not self._is_readable:
            raise ValueError("31 is not a valid Type")  # PyAV's words for EXIF
        return self._kinds


def test_side_data_is_read_by_name_and_what_pyav_cannot_read_counts_as_none():
    assert side_data(_Frame({"DISPLAYMATRIX": b"nine"}), "DISPLAYMATRIX") == b"nine"
    assert side_data(_Frame({}), "DISPLAYMATRIX") is None
    assert side_data(_Frame({"DISPLAYMATRIX": b"nine"}, is_readable=False), "DISPLAYMATRIX") is None
