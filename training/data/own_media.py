"""Pictures and sounds of a user's own records: files in folders or in tar files, or base64 in the record itself."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from mmdata.errors import UserError
from mmdata.storage.tar import MAX_NAME_BYTES, BrokenTar, entries

EMBEDDED = -1  # the place of a medium that is in its record
WHOLE_FILE = -1  # the length of a medium that is a file in a folder
_DATA_URI = re.compile(r"data:[^,]{0,100};base64,", re.IGNORECASE)
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
# How JPEG, PNG, GIF, WebP (and WAV), BMP, TIFF, FLAC, Ogg and MP3 begin in base64.
_BASE64_BEGINNINGS = ("/9j/", "iVBORw0KGgo", "R0lGOD", "UklGR", "Qk0", "SUkqA", "TU0AK", "ZkxhQ", "T2dnU", "SUQz")
_MIN_BASE64_CHARS = 64  # a shorter text is a path, whatever it begins with
_MAX_NAME_CHARS = 4096  # the longest path of Linux


class Place(NamedTuple):
    """Where a medium lies."""

    number: int  # of the folder or tar file; EMBEDDED: in the record
    offset: int = 0  # in the tar file, in bytes
    length: int = WHOLE_FILE  # in the tar file, in bytes


class MediaPlaces:
    """The folders and tar files that the media of some records lie in. It can be pickled, and read in workers.

    Args: paths: searched in this order.
    Raises UserError: a path is missing, or is neither a folder nor a plain tar file.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = [path.resolve() for path in paths]
        for path in paths:
            if not path.exists():
                raise UserError(
                    f"{path}: no such folder or tar file. Remedy: `pictures` of the source in data.sources."
                )
            if path.is_file() and not _begins_as_tar(path):
                raise UserError(
                    f"{path}: is neither a folder nor a plain tar file of pictures. "
                    "Remedy: unpack it, or pack it again without compression."
                )

    def __getstate__(self) -> dict[str, object]:
        return {"_paths": self._paths}

    def find(self, name: str) -> Place:
        """Where the medium of a name, a data URI or base64 text lies.

        Raises ValueError: it is an address on the web, or lies in none of the places, or outside of them.
        """
        if is_embedded(name):
            return Place(EMBEDDED)
        if _ADDRESS.match(name):
            raise ValueError(
                f"{name[:80]!r} is an address, and training fetches nothing. Remedy: fetch the pictures first (a "
                "source of corpus.yaml and `mmdata build`, or a downloader), and name the files"
            )
        for number, path in enumerate(self._paths):
            if path.is_dir():
                if self._file(path, name) is not None:
                    return Place(number)
            elif (member := self._members[number].get(name.removeprefix("./"))) is not None:
                return Place(number, *member)
        hint = (
            f"; a tar file is searched for names of up to {MAX_NAME_BYTES} bytes" if len(name) > MAX_NAME_BYTES else ""
        )
        raise ValueError(f"no picture or sound {name[:80]!r} in {', '.join(map(str, self._paths))}{hint}")

    def read(self, name: str, place: Place) -> bytes:
        """The bytes of a medium. Raises ValueError: it is broken base64, or the file is gone."""
        if place.number == EMBEDDED:
            return embedded_bytes(name)
        path = self._paths[place.number]
        try:
            if place.length == WHOLE_FILE:
                file_path = self._file(path, name)
                if file_path is None:
                    raise ValueError(f"{path / name}: is no longer there")
                return file_path.read_bytes()
            with path.open("rb") as file:
                file.seek(place.offset)
                return file.read(place.length)
        except OSError as error:
            raise ValueError(f"{path / name}: cannot be read ({error.strerror})") from None

    @staticmethod
    def _file(folder: Path, name: str) -> Path | None:
        """The file of a name; None if there is none. Raises ValueError: it is outside of the folder."""
        if "\0" in name or len(name) > _MAX_NAME_CHARS:
            raise ValueError(f"{name[:80]!r} is neither a path nor base64 of a picture")
        try:
            path = (folder / name).resolve()
            if not path.is_relative_to(folder):
                raise ValueError(f"{name[:80]!r} leads out of the folder of pictures {folder}")
            return path if path.is_file() else None
        except (OSError, RuntimeError) as error:  # a name that is too long, or a circle of links
            raise ValueError(f"{name[:80]!r} is not a path ({error})") from None

    @cached_property
    def _members(self) -> dict[int, dict[str, tuple[int, int]]]:
        """By place: offset and length of each file in the tar by its name, which has at most 100 bytes."""
        members: dict[int, dict[str, tuple[int, int]]] = {}
        for number, path in enumerate(self._paths):
            if path.is_file():
                try:
                    with path.open("rb") as tar:
                        members[number] = {
                            entry.name.removeprefix("./"): (entry.data_at, entry.size)
                            for entry in entries(tar)
                            if entry.is_plain
                        }
                except BrokenTar as error:
                    raise UserError(
                        f"{path}: a damaged tar file ({error}). Remedy: unpack it, or pack it anew."
                    ) from None
        return members


def _begins_as_tar(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return next(entries(file), None) is not None
    except BrokenTar:
        return False


def is_embedded(text: str) -> bool:
    """Whether a text is a data URI, or bare base64 of a picture or sound, and not a path.

    Base64 has no dots, and names of files have; a text without a dot is base64 if it begins as one of the usual formats
    does, or is too long for a path.
    """
    if text[:5].lower() == "data:":
        return True
    is_long = len(text) > _MAX_NAME_CHARS
    begins_so = len(text) >= _MIN_BASE64_CHARS and text.lstrip().startswith(_BASE64_BEGINNINGS)
    return (is_long or begins_so) and "." not in text


def embedded_bytes(text: str) -> bytes:
    """The bytes of a data URI or of bare base64, which may be wrapped in lines. Raises ValueError: it is broken."""
    head = _DATA_URI.match(text)
    if head is None and text[:5].lower() == "data:":
        raise ValueError(f"{text[:40]!r} is a data URI, but not of base64")
    body = text[head.end() if head else 0 :]
    try:
        return base64.b64decode("".join(body.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"broken base64 ({error})") from None
