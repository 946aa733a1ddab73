"""What a sample is forgotten or refused by: a URL, a domain, a uid, or the SHA-256 of a file; kept as hashes alone."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Literal, NamedTuple, get_args

from mmdata.errors import UserError
from mmdata.urls import domains_of, url_key

Kind = Literal["url", "domain", "uid", "sha256"]
KINDS: tuple[Kind, ...] = get_args(Kind)
HASH_BYTES = 16

_HEX = {"uid": re.compile(r"[0-9a-f]{32}"), "sha256": re.compile(r"[0-9a-f]{64}")}
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")


class Selector(NamedTuple):
    """What samples are meant, in its one spelling (see `selector`)."""

    kind: Kind
    value: str

    def hash(self) -> bytes:
        """16 bytes that stand for it where it must not be kept itself."""
        return hash_of(self.kind, self.value)


def hash_of(kind: Kind, value: str) -> bytes:
    """The first 16 bytes of the SHA-256 of `<kind>`, a newline, and the value in its one spelling."""
    return hashlib.sha256(f"{kind}\n{value}".encode("utf-8", "surrogatepass")).digest()[:HASH_BYTES]


def selector(kind: Kind, text: str) -> Selector:
    """A selector in its one spelling.

    A URL is canonical and has no scheme, so that http and https are the same; a domain is in lower case and in its
    ASCII form, without a leading `*.`.

    Raises:
        UserError: the text is no such thing.
    """
    text = text.strip()
    if kind == "url":
        key = url_key(text)
        if key is None:
            raise UserError(f"{text!r} is no URL. Remedy: give it whole, as http://… or https://…")
        return Selector(kind, key)
    if kind == "domain":
        name = _domain(text)
        if name is None:
            raise UserError(f"{text!r} is no domain. Remedy: give a host name such as example.org.")
        return Selector(kind, name)
    if not _HEX[kind].fullmatch(text.lower()):
        digits = {"uid": 32, "sha256": 64}[kind]
        raise UserError(f"{text!r} is no {kind}. Remedy: give {digits} hex digits.")
    return Selector(kind, text.lower())


def guess(text: str) -> Selector:
    """The selector that a text is by its look: 64 hex digits, 32 hex digits, a URL, else a domain.

    Raises:
        UserError: it is none of these.
    """
    text = text.strip()
    for kind, pattern in _HEX.items():
        if pattern.fullmatch(text.lower()):
            return selector(kind, text)  # type: ignore[arg-type]
    if "://" in text:
        return selector("url", text)
    name = _domain(text)
    if name is None or "." not in name:
        raise UserError(f"{text!r} is no URL (http://…), no domain, no SHA-256 (64 hex digits) and no uid (32)")
    return Selector("domain", name)


def hashes_of_url(url: str, kinds: frozenset[Kind]) -> Iterator[tuple[Kind, bytes]]:
    """The hashes of a URL and of the domains of its host, of the kinds asked for."""
    key = url_key(url)
    if key is None:
        return
    if "url" in kinds:
        yield "url", hash_of("url", key)
    if "domain" in kinds:
        for digest in _domain_hashes(key.partition("/")[0]):
            yield "domain", digest


@lru_cache(maxsize=65_536)
def _domain_hashes(authority: str) -> tuple[bytes, ...]:
    try:
        return tuple(hash_of("domain", name) for name in domains_of(authority))
    except ValueError:  # brackets that hold no address
        return ()


def _domain(text: str) -> str | None:
    name = text.lower().removeprefix("*.").strip(".")
    try:
        if not name.isascii():
            name = name.encode("idna").decode("ascii")
    except UnicodeError:
        return None
    if not name or len(name) > 253 or not all(_LABEL.fullmatch(label) for label in name.split(".")):
        return None
    return name
