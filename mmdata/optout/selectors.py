"""Selectors of samples to leave out: by URL, domain, uid, or the SHA-256 of a file. Only their hashes are stored."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Literal, NamedTuple, get_args

from mmdata.errors import UserError
from mmdata.urls import ascii_host, domains_of, url_key

Kind = Literal["url", "domain", "uid", "sha256"]
KINDS: tuple[Kind, ...] = get_args(Kind)
HASH_BYTES = 16

_HEX = {"uid": re.compile(r"[0-9a-f]{32}"), "sha256": re.compile(r"[0-9a-f]{64}")}
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")


class Selector(NamedTuple):
    """Which samples are meant, in the normal form that `selector_of` gives."""

    kind: Kind
    value: str

    def hash(self) -> bytes:
        """16 bytes that are stored in place of the value, which must not be kept."""
        return hash_of(self.kind, self.value)


def hash_of(kind: Kind, value: str) -> bytes:
    """The first 16 bytes of the SHA-256 of `<kind>`, a newline, and the value in its normal form."""
    return hashlib.sha256(f"{kind}\n{value}".encode("utf-8", "surrogatepass")).digest()[:HASH_BYTES]


def selector_of(kind: Kind, text: str) -> Selector:
    """A selector in its normal form.

    A URL is canonical and has no scheme, so that http and https are the same; a domain is in lower case and in its
    ASCII form, without a leading `*.`.

    Raises:
        UserError: the text is not of that kind.
    """
    text = text.strip()
    if kind == "url":
        if key := url_key(text):
            return Selector(kind, key)
        raise UserError(f"{text!r} is not a URL. Remedy: give the whole URL, as http://… or https://…")
    if kind == "domain":
        if name := _domain(text):
            return Selector(kind, name)
        raise UserError(f"{text!r} is not a domain. Remedy: give a host name such as example.org.")
    if not _HEX[kind].fullmatch(text.lower()):
        raise UserError(f"{text!r} is not a {kind}. Remedy: give {32 if kind == 'uid' else 64} hex digits.")
    return Selector(kind, text.lower())


def guess_selector(text: str) -> Selector:
    """The selector in a text, its kind guessed from its form: 64 or 32 hex digits, a URL, else a domain."""
    text = text.strip()
    for kind, pattern in _HEX.items():
        if pattern.fullmatch(text.lower()):
            return selector_of(kind, text)  # type: ignore[arg-type]
    if "://" in text:
        return selector_of("url", text)
    name = _domain(text)
    if name is None or "." not in name:
        raise UserError(
            f"{text!r} is not a URL (http://…), a domain, a SHA-256 (64 hex digits) or a uid (32 hex digits)"
        )
    return Selector("domain", name)


def hashes_of_url(url: str, kinds: frozenset[Kind]) -> Iterator[tuple[Kind, bytes]]:
    """The hashes of a URL and of all domains of its host, as far as `kinds` names them."""
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
    except ValueError:  # the brackets hold no IPv6 address
        return ()


def _domain(text: str) -> str | None:
    try:
        name = ascii_host(text.removeprefix("*.")).strip(".")
    except UnicodeError:
        return None
    if not name or len(name) > 253 or not all(_LABEL.fullmatch(label) for label in name.split(".")):
        return None
    return name
