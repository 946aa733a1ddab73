"""Undoes the encodings of a body (gzip, deflate, br, zstd, or one over another), block by block and within limits.

We ask for none, but some servers hold only the compressed file, and many write something into Content-Encoding that is
no encoding: `none`, `utf-8`, `aws-chunked`, `image/jpeg`. Browsers take such a body as it is, and so do we.
"""

from __future__ import annotations

import http.client
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from mmdata.web.failures import FetchError
from mmdata.web.limits import Fetch

READ_BYTES = 1 << 16
MAX_ENCODINGS = 3
_GZIP, _ZLIB, _RAW_DEFLATE = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS
_NAMES = {"gzip": "gzip", "x-gzip": "gzip", "deflate": "deflate", "br": "br", "zstd": "zstd"}

Blocks = Iterator[bytes]
"""A body in pieces. Ends with IncompleteRead if the body has no proper end."""


class UnfinishedEncoding(http.client.IncompleteRead):
    """The response is whole, but the encoded data in it break off."""


def encodings_of(values: Iterable[str]) -> list[str]:
    """The encodings that the headers name, in the order in which they were applied; unknown names are left out."""
    tokens = (token.strip().lower() for value in values for token in value.split(","))
    return [_NAMES[token] for token in tokens if token in _NAMES]


def decoded(blocks: Blocks, encodings: list[str], fetch: Fetch) -> Blocks:
    """The body without its encodings.

    A body that does not begin as its encoding says is taken as it is: that server has named an encoding that it did
    not apply.

    Raises:
        FetchError: `too_large` (also between two encodings), `deadline`, `bad_response` for damaged data.
        IncompleteRead: the response breaks off. UnfinishedEncoding: only the encoded data do.
    """
    if len(encodings) > MAX_ENCODINGS:
        raise FetchError("bad_response", f"{len(encodings)} encodings, one over another")
    for encoding in reversed(encodings):
        blocks = _within_limits(_DECODERS[encoding](blocks), fetch)
    return blocks


def _within_limits(blocks: Blocks, fetch: Fetch) -> Blocks:
    total = 0
    for block in blocks:
        fetch.wait_limit_s()  # raises at the deadline: decoding takes time, too
        total += len(block)
        if total > fetch.max_bytes:
            raise FetchError("too_large", f"the decoded body is over the limit of {fetch.max_bytes} bytes")
        yield block


class _Input:
    """The encoded blocks, read by size. Keeps what was read until `forget`, to give it back undecoded."""

    closed = False

    def __init__(self, blocks: Blocks) -> None:
        self._blocks, self._pending = blocks, b""
        self._read: list[bytes] | None = []
        self.error: BaseException | None = None

    def read(self, size: int = READ_BYTES) -> bytes:
        """At most `size` bytes; none at the end."""
        try:
            data = self._pending or next(self._blocks, b"")
        except http.client.IncompleteRead as error:  # to the decoder it is the end, so that it gives out what it has
            self.error = error
            return b""
        except BaseException as error:
            self.error = error
            raise
        data, self._pending = data[:size], data[size:]
        if self._read is not None:
            self._read.append(data)
        return data

    def forget(self) -> None:
        """The first byte is decoded: what was read is not given back any more."""
        self._read = None

    def undecoded(self, error: Exception) -> Blocks:
        """All blocks as they came. Raises FetchError `bad_response` after `forget`."""
        if self._read is None:
            raise FetchError("bad_response", f"the encoded body is damaged ({error})", may_pass=True)
        yield from [*self._read, self._pending]
        yield from self._blocks
        self.raise_its_error()

    def raise_its_error(self) -> None:
        """Raise what ended the blocks early, if something did."""
        if self.error is not None:
            raise self.error

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        """Nothing is open."""


def _inflated(blocks: Blocks, window_bits: Callable[[bytes], int]) -> Blocks:
    """The data of gzip or deflate; of gzip all members, one after the other."""
    source = _Input(blocks)
    decompressor: Any = None
    while data := source.read():
        while data:
            if decompressor is None:
                data += source.read(1) if len(data) == 1 else b""
                decompressor = zlib.decompressobj(window_bits(data))
            try:
                block = decompressor.decompress(data, READ_BYTES)
            except zlib.error as error:
                yield from source.undecoded(error)
                return
            if block:
                source.forget()
                yield block
            data = decompressor.unconsumed_tail
            if decompressor.eof:
                data, decompressor = decompressor.unused_data, None
                data = data or source.read()
                if data[:1] != b"\x1f":  # the first byte of a further member of gzip; anything else is padding
                    return
    if decompressor is None:
        source.raise_its_error()
        return
    if rest := decompressor.flush():
        yield rest
    source.raise_its_error()
    raise UnfinishedEncoding(b"")


def _deflate_window_bits(data: bytes) -> int:
    """`deflate` means data with zlib's header; some servers send them without."""
    has_header = len(data) > 1 and data[0] & 15 == 8 and (data[0] << 8 | data[1]) % 31 == 0
    return _ZLIB if has_header else _RAW_DEFLATE


def _by_arrow(blocks: Blocks, codec: str) -> Blocks:
    """The data of a codec that Arrow has and Python has not."""
    import pyarrow as pa

    source = _Input(blocks)
    stream = pa.CompressedInputStream(pa.PythonFile(source, mode="r"), codec)
    while True:
        try:
            block = stream.read(READ_BYTES)
        except OSError as error:
            source.raise_its_error()
            if "Truncated" in str(error):
                raise UnfinishedEncoding(b"") from None
            yield from source.undecoded(error)
            return
        if not block:
            source.raise_its_error()
            return
        source.forget()
        yield block


_DECODERS: dict[str, Callable[[Blocks], Blocks]] = {
    "gzip": partial(_inflated, window_bits=lambda _: _GZIP),
    "deflate": partial(_inflated, window_bits=_deflate_window_bits),
    "br": partial(_by_arrow, codec="brotli"),
    "zstd": partial(_by_arrow, codec="zstd"),
}
