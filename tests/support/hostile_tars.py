"""Archives that nobody sane writes: each as the bytes of a tar, made around the members of an honest one."""

from __future__ import annotations

import io
import pickle
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

Members = Mapping[str, bytes]
TRAVERSALS = (
    "../evil.jpg",
    "../../../../tmp/evil.jpg",
    "/tmp/evil.jpg",
    "a/../../evil.jpg",
    "..\\evil.jpg",
    "C:\\evil.jpg",
)


class Touch:
    """Pickled, it writes a file when it is unpickled."""

    def __init__(self, place: Path) -> None:
        self._place = place

    def __reduce__(self) -> tuple[Callable[..., int], tuple[str]]:
        return Path.write_text.__get__(self._place), ("unpickled",)


def plain(members: Members) -> bytes:
    return _written(members)


def renamed(name: str) -> Callable[[Members], bytes]:
    return lambda members: _written({**members, name: b"\xff\xd8\xff"})


def typed(kind: bytes, link: str = "") -> Callable[[Members], bytes]:
    """With one more member of a type: link, device, FIFO, …, under a name that looks like a sample's."""

    def make(members: Members) -> bytes:
        info = tarfile.TarInfo(_key(members) + ".png")
        info.type, info.linkname = kind, link
        return _written(members, info)

    return make


def sparse(members: Members) -> bytes:
    """A member of 512 stored bytes that unfolds to 4 GiB of zeros."""
    block = bytearray(_header(_key(members) + ".png", 0))
    block[156:157] = tarfile.GNUTYPE_SPARSE
    block[257:265] = b"ustar  \0"
    block[386:410] = b"00000000000\0" + b"00000000000\0"
    block[483:495] = b"40000000000\0"
    return _sealed(block) + _written(members)


def long_name(members: Members) -> bytes:
    """GNU's long name, of a megabyte."""
    return _extended(tarfile.GNUTYPE_LONGNAME, b"a" * 1_000_000 + b"\0") + _written(members)


def pax_chain(members: Members) -> bytes:
    """Three thousand extended headers one behind the other: a call within a call for each."""
    return _extended(tarfile.XHDTYPE, b"13 path=a.jpg\n") * 3000 + _written(members)


def pax_size(members: Members) -> bytes:
    """An extended header that says another size than the header does."""
    return _extended(tarfile.XHDTYPE, b"22 size=999999999999\n\n") + _written(members)


def pax_path(members: Members) -> bytes:
    return _extended(tarfile.XHDTYPE, b"30 path=../../../../etc/passwd") + _written(members)


def huge(members: Members) -> bytes:
    return _header(_key(members) + ".png", 8**11 - 1) + _written(members)


def negative(members: Members) -> bytes:
    block = bytearray(_header(_key(members) + ".png", 0))
    block[124:136] = b"\xff" * 12
    return _sealed(block) + _written(members)


def doubled(members: Members) -> bytes:
    name, data = next(iter(members.items()))
    return _header(name, len(data)) + data.ljust(-(-len(data) // 512) * 512, b"\0") + _written(members)


def cut_short(members: Members) -> bytes:
    return _written(members)[:700]


def bad_checksum(members: Members) -> bytes:
    whole = bytearray(_written(members))
    whole[0] ^= 1
    return bytes(whole)


def pickled(ext: str, place: Path) -> Callable[[Members], bytes]:
    return lambda members: _written({**members, f"{_key(members)}.{ext}": pickle.dumps(Touch(place))})


def archives(place: Path) -> dict[str, Callable[[Members], bytes]]:
    """Every kind, by name. Args: place: what a pickle in one of them writes."""
    return {
        **{f"name {name}": renamed(name) for name in TRAVERSALS},
        "symbolic link": typed(tarfile.SYMTYPE, "/etc/passwd"),
        "hard link": typed(tarfile.LNKTYPE, "/etc/passwd"),
        "character device": typed(tarfile.CHRTYPE),
        "block device": typed(tarfile.BLKTYPE),
        "fifo": typed(tarfile.FIFOTYPE),
        "folder": typed(tarfile.DIRTYPE),
        "sparse file": sparse,
        "long name": long_name,
        "chain of extended headers": pax_chain,
        "extended size": pax_size,
        "extended path": pax_path,
        "size of 8 GiB": huge,
        "size below zero": negative,
        "member twice": doubled,
        "cut short": cut_short,
        "checksum": bad_checksum,
        "no tar": lambda members: b"\x1f\x8b" + b"not a tar" * 200,
        **{f"pickle as .{ext}": pickled(ext, place) for ext in ("pkl", "pyd", "pickle", "pth", "npy", "cls")},
    }


COUNT = len(archives(Path()))


def _key(members: Members) -> str:
    return next(iter(members)).partition(".")[0]


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.USTAR_FORMAT)


def _sealed(block: bytearray) -> bytes:
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    return bytes(block)


def _extended(kind: bytes, data: bytes) -> bytes:
    block = bytearray(_header("././@LongLink", len(data)))
    block[156:157] = kind
    return _sealed(block) + data.ljust(-(-len(data) // 512) * 512, b"\0")


def _written(members: Members, *others: tarfile.TarInfo) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for info in others:
            tar.addfile(info)
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()
