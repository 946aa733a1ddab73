"""URLs: the canonical spelling, the host, and the registrable domain.

Without a list of public suffixes (a dependency whose data ages) the registrable domain is told by its shape: the last
two labels, or the last three where the second-last is one that countries sell names under (`co.uk`, `com.au`).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit, urlunsplit

if TYPE_CHECKING:
    import polars as pl

_DEFAULT_PORTS = {"http": "80", "https": "443"}
_UNSAFE = re.compile(r"[\x00-\x20\x7f]")
SECOND_LEVEL = (
    "ac|asn|co|com|edu|firm|gen|go|gob|gouv|gov|govt|id|in|info|ltd|me|mil|muni|ne|net|nhs|nic|nom|or|org|plc|sch"
)
_HOST = r"^[a-zA-Z][a-zA-Z0-9+.-]*://(?:[^/?#@]*@)?(\[[^\]]*\]|[^/?#:]*)"
_NUMBERS = r"^(?:\[.*|[0-9.]+)$"


def canonical_url(url: str) -> str:
    """One spelling of a URL: scheme and host in lower case, no default port, no fragment, escapes in upper case.

    Path, query and their order stay, since servers may tell them apart. Text that is no absolute URL is
    returned stripped, so that it still has one identity; whether it may be fetched is the guard's decision.
    """
    url = url.strip()
    try:
        scheme, netloc, path, query, _fragment = urlsplit(url)
        if not scheme or not netloc:
            return url
        user, at, host = netloc.rpartition("@")
        name, colon, port = host.rpartition(":")
        if not colon or not port.isdigit():
            name, port = host.rstrip(":"), ""
        name = name.lower().rstrip(".")
        if not name.isascii():
            name = name.encode("idna").decode("ascii")
    except (ValueError, UnicodeError):
        return url
    scheme = scheme.lower()
    if port and _DEFAULT_PORTS.get(scheme) != port:
        name = f"{name}:{port}"
    return urlunsplit((scheme, user + at + name, _escape(path) or "/", _escape(query), ""))


def url_key(url: str) -> str | None:
    """What a URL is compared by: its canonical form without the scheme; None: it is no http(s) URL with a host."""
    scheme, mark, rest = canonical_url(url).partition("://")
    if not mark or scheme not in ("http", "https") or not rest.partition("/")[0]:
        return None
    return rest


def host_and_port(url: str) -> str:
    """The `host:port` of a URL as it is written, in lower case; the empty string if the URL has no host.

    Requests are limited, counted and reported per host by this key. Login data before an `@` is left out.
    """
    try:
        return urlsplit(url).netloc.rpartition("@")[2].lower()
    except ValueError:
        return ""


def host_name(url: str) -> str:
    """The host of a URL in lower case, without port, brackets or final dot; the empty string if it has none."""
    try:
        return (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:
        return ""


@lru_cache(maxsize=65_536)
def domains_of(key: str) -> tuple[str, ...]:
    """The host of `host:port`, and the domains that it lies under: a.b.org, b.org, org. An address is only itself."""
    host = urlsplit(f"//{key}").hostname or ""
    labels = host.split(".")
    if ":" in host or labels[-1].isdigit():
        return (host,)
    return tuple(".".join(labels[start:]) for start in range(len(labels)))


def host() -> pl.Expr:
    """The host of column `url`, in lower case; null without one."""
    import polars as pl

    found = pl.col("url").str.extract(_HOST, 1).str.to_lowercase().str.strip_chars_end(".")
    return pl.when(found.str.len_bytes() > 0).then(found)


def registrable_domain(of: pl.Expr, suffixes: list[str] | None = None) -> pl.Expr:
    """The part of a host that somebody registered: `example.co.uk` of `a.b.example.co.uk`. Addresses are their own.

    Args:
        suffixes: further ones under which others register, such as `github.io`.
    """
    import polars as pl

    own = [re.escape(suffix.strip(".").lower()) for suffix in suffixes or ()]
    patterns = [
        *([rf"([^.]+\.(?:{'|'.join(sorted(own, key=len, reverse=True))}))$"] if own else []),
        rf"([^.]+\.(?:{SECOND_LEVEL})\.[a-z]{{2}})$",
        r"([^.]+\.[^.]+)$",
    ]
    return (
        pl.when(of.str.contains(_NUMBERS))
        .then(of)
        .otherwise(pl.coalesce(*(of.str.extract(pattern, 1) for pattern in patterns), of))
    )


def _escape(text: str) -> str:
    text = re.sub(r"%[0-9a-fA-F]{2}", lambda found: found.group().upper(), text)
    return quote(_UNSAFE.sub(lambda found: f"%{ord(found.group()):02X}", text), safe="%/:?#[]@!$&'()*+,;=~-._|")
