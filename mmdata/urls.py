"""URLs: the canonical form, the key to compare URLs by, the host, and the registrable domain.

We use no list of public suffixes, since such a list needs regular updates. The registrable domain is the last two
labels of the host, or the last three if the middle one is among `SECOND_LEVEL`, as in `example.co.uk`.
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
"""Labels under which countries register names, as in `co.uk`."""

_AUTHORITY = r"^[a-zA-Z][a-zA-Z0-9+.-]*://(?:[^/?#]*@)?([^/?#]*)"  # after the login data, before the path
_IP_ADDRESS = r":|^[0-9.]+$"


def canonical_url(url: str) -> str:
    """The canonical form of a URL: scheme and host in lower case, no default port, no fragment, escapes in upper case.

    Path, query and their order stay, since a server may answer differently to another spelling. Text that is not an
    absolute URL is returned without outer spaces. Whether a URL may be fetched is decided in `mmdata.web.guard`.
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
    """The canonical URL without its scheme, to compare URLs by; None if it is not an http(s) URL with a host."""
    scheme, separator, rest = canonical_url(url).partition("://")
    if not separator or scheme not in ("http", "https") or not rest.partition("/")[0]:
        return None
    return rest


def host_and_port(url: str) -> str:
    """The `host:port` of a URL in lower case, without login data; the empty string if the URL has no host.

    Requests are limited, counted and reported per host by this key.
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
def domains_of(host_port: str) -> tuple[str, ...]:
    """The host of `host:port` and all domains above it: a.b.org, b.org, org. An IP address has none above it.

    Raises:
        ValueError: the brackets of the host hold no IPv6 address.
    """
    host = urlsplit(f"//{host_port}").hostname or ""
    labels = host.split(".")
    if ":" in host or labels[-1].isdigit():
        return (host,)
    return tuple(".".join(labels[start:]) for start in range(len(labels)))


def host_and_port_expr(url: pl.Expr) -> pl.Expr:
    """`host_and_port` over a column of URLs; null instead of the empty string."""
    host_port = url.str.extract(_AUTHORITY, 1).str.to_lowercase()
    return _null_if_empty(host_port)


def host_name_expr(url: pl.Expr) -> pl.Expr:
    """`host_name` over a column of URLs; null instead of the empty string."""
    import polars as pl

    host_port = host_and_port_expr(url)
    # an IPv6 address stands in brackets; any other host ends at the colon of its port
    host = pl.coalesce(host_port.str.extract(r"^\[([^\]]*)\]", 1), host_port.str.extract(r"^([^:]*)", 1))
    return _null_if_empty(host.str.strip_chars_end("."))


def registrable_domain(host: pl.Expr, suffixes: list[str] | None = None) -> pl.Expr:
    """The part of a host that somebody registered: `example.co.uk` of `a.b.example.co.uk`; IP addresses stay whole.

    Args:
        host: as `host_name_expr` gives it.
        suffixes: further domains under which names are registered, such as `github.io`.
    """
    import polars as pl

    further = sorted((re.escape(suffix.strip(".").lower()) for suffix in suffixes or ()), key=len, reverse=True)
    patterns = [
        *([rf"([^.]+\.(?:{'|'.join(further)}))$"] if further else []),
        rf"([^.]+\.(?:{SECOND_LEVEL})\.[a-z]{{2}})$",
        r"([^.]+\.[^.]+)$",
    ]
    return (
        pl.when(host.str.contains(_IP_ADDRESS))
        .then(host)
        .otherwise(pl.coalesce(*(host.str.extract(pattern, 1) for pattern in patterns), host))
    )


def _null_if_empty(text: pl.Expr) -> pl.Expr:
    import polars as pl

    return pl.when(text.str.len_bytes() > 0).then(text)


def _escape(text: str) -> str:
    """Percent-encode what may not stand in a URL; existing escapes stay, in upper case."""
    text = re.sub(r"%[0-9a-fA-F]{2}", lambda match: match.group().upper(), text)
    return quote(_UNSAFE.sub(lambda match: f"%{ord(match.group()):02X}", text), safe="%/:?#[]@!$&'()*+,;=~-._|")
