"""URLs: the canonical form, the key to compare URLs by, the host, and the registrable domain.

A host with letters beyond ASCII is written as browsers write it (UTS 46, not transitional): `faß.de` is
`xn--fa-hia.de`. Python's own codec, IDNA 2003, would make `fass.de` of it, which is another owner's host.

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

MAX_LABEL_CHARS = 63  # of a host name, by RFC 1035
_SURROGATE = re.compile("[\ud800-\udfff]")
_AUTHORITY = r"^[a-zA-Z][a-zA-Z0-9+.-]*://(?:[^/?#]*@)?([^/?#]*)"  # after the login data, before the path
_IP_ADDRESS = r":|^[0-9.]+$"


def canonical_url(url: str) -> str:
    """The canonical form of a URL: scheme and host in lower case, no default port, no fragment, escapes in upper case.

    Path, query and their order stay, since a server may answer differently to another spelling. Text that is not an
    absolute URL is returned without outer spaces. Half a surrogate pair becomes U+FFFD, as in browsers.
    Whether a URL may be fetched is decided in `mmdata.web.guard`.
    """
    url = _SURROGATE.sub("\ufffd", url).strip()
    try:
        scheme, netloc, path, query, _fragment = urlsplit(url)
        if not scheme or not netloc:
            return url
        user, at, host = netloc.rpartition("@")
        name, colon, port = host.rpartition(":")
        if not colon or not port.isdigit():
            name, port = host.rstrip(":"), ""
        name = ascii_host(name).rstrip(".")
    except (ValueError, UnicodeError):
        return url
    scheme = scheme.lower()
    if port and _DEFAULT_PORTS.get(scheme) != port:
        name = f"{name}:{port}"
    return urlunsplit((scheme, user + at + name, _escape(path) or "/", _escape(query), ""))


def ascii_host(host: str) -> str:
    """A host in lower case and in ASCII, as it is looked up: `Bücher.example` is `xn--bcher-kva.example`.

    The mapping is that of browsers (UTS 46, not transitional); what they allow beyond IDNA 2008, such as emoji, stays
    allowed.

    Raises:
        UnicodeError: a character of the host may not stand in one, or a label is too long.
    """
    if host.isascii():
        return host.lower()
    import idna

    labels = idna.uts46_remap(host, std3_rules=False, transitional=False).split(".")
    if any(len(label) > MAX_LABEL_CHARS for label in labels):
        raise UnicodeError(f"a label of the host is longer than {MAX_LABEL_CHARS} characters")
    return ".".join(label if label.isascii() else f"xn--{label.encode('punycode').decode()}" for label in labels)


def url_key(url: str) -> str | None:
    """The canonical URL without its scheme, to compare URLs by; None if it is not an http(s) URL with a host."""
    scheme, separator, rest = canonical_url(url).partition("://")
    if not separator or scheme not in ("http", "https") or not rest.partition("/")[0]:
        return None
    return rest


def host_and_port(url: str) -> str:
    """The `host:port` of a URL in lower case and ASCII, without login data; the empty string if the URL has no host.

    Requests are limited, counted and reported per host by this key.
    """
    try:
        return _ascii_or_lower(urlsplit(url).netloc.rpartition("@")[2])
    except ValueError:
        return ""


def host_name(url: str) -> str:
    """The host of a URL in lower case and ASCII, without port, brackets or final dot; the empty string: it has none."""
    try:
        return _ascii_or_lower(urlsplit(url).hostname or "").rstrip(".")
    except ValueError:
        return ""


@lru_cache(maxsize=65_536)
def domains_of(host_port: str) -> tuple[str, ...]:
    """The host of `host:port` and all domains above it: a.b.org, b.org, org. An IP address has none above it.

    Raises:
        ValueError: the brackets of the host hold no IPv6 address.
    """
    host = _ascii_or_lower(urlsplit(f"//{host_port}").hostname or "")
    labels = host.split(".")
    if ":" in host or labels[-1].isdigit():
        return (host,)
    return tuple(".".join(labels[start:]) for start in range(len(labels)))


def host_and_port_expr(url: pl.Expr) -> pl.Expr:
    """`host_and_port` over a column of URLs; null instead of the empty string."""
    import polars as pl

    host_port = url.str.extract(_AUTHORITY, 1).str.to_lowercase().map_batches(_ascii_hosts, return_dtype=pl.String)
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


def _ascii_or_lower(host: str) -> str:
    """`ascii_host`, or the host in lower case if it cannot be written in ASCII: nobody is asked there."""
    try:
        return ascii_host(host)
    except UnicodeError:
        return host.lower()


def _ascii_hosts(hosts: pl.Series) -> pl.Series:
    """`_ascii_or_lower` of each host; a column in ASCII, which is the rule, is returned as it is."""
    foreign = hosts.filter(hosts.str.contains(r"[^\x00-\x7f]")).unique().to_list()
    return hosts.replace({host: _ascii_or_lower(host) for host in foreign}) if foreign else hosts


def _null_if_empty(text: pl.Expr) -> pl.Expr:
    import polars as pl

    return pl.when(text.str.len_bytes() > 0).then(text)


def _escape(text: str) -> str:
    """Percent-encode what may not stand in a URL; existing escapes stay, in upper case."""
    text = re.sub(r"%[0-9a-fA-F]{2}", lambda match: match.group().upper(), text)
    return quote(_UNSAFE.sub(lambda match: f"%{ord(match.group()):02X}", text), safe="%/:?#[]@!$&'()*+,;=~-._|")
