"""Decides which network addresses may be contacted, and looks names up within a time limit. Used by the guard."""

from __future__ import annotations

import ipaddress
import queue
import socket
import threading
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from mmdata.errors import UserError
from mmdata.web.failures import FetchError

Address = IPv4Address | IPv6Address
Resolver = Callable[[str, int], list[str]]
"""Takes a host name and a port, returns the addresses of the name as text. Raises OSError as getaddrinfo does."""

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_ISATAP_INTERFACE_PREFIX = 0x5EFE  # RFC 5214: these 32 bits stand before the IPv4 address
_NEVER_PUBLIC = tuple(
    ipaddress.ip_network(text)
    for text in (
        # `is_global` of some Python releases accepts these: site-local, documentation and reserved networks.
        *("fec0::/10", "3fff::/20", "5f00::/16", "64:ff9b:1::/48", "::/96", "192.0.0.0/24"),
        "192.88.99.0/24",  # 6to4 relays
        "168.63.129.16/32",  # Azure's host agent: formally public, but it answers inside each virtual machine
    )
)


class AllowList:
    """Host names and networks that may be contacted although they are not public.

    Args:
        entries: names (`mirror.internal`), addresses or networks in CIDR form (`10.0.0.0/8`).

    Raises:
        UserError: an entry with a slash is not a network.
    """

    def __init__(self, entries: Iterable[str]) -> None:
        self.names: set[str] = set()
        self.networks: list[IPv4Network | IPv6Network] = []
        for entry in entries:
            try:
                self.networks.append(ipaddress.ip_network(entry.strip("[]"), strict=False))
            except ValueError:
                if "/" in entry:
                    raise UserError(
                        f"download.allow_hosts: {entry!r} is neither a host name nor a network. "
                        "Remedy: write a name, an address, or a network such as 10.0.0.0/8."
                    ) from None
                self.names.add(entry.lower().rstrip("."))

    def has_name(self, host: str) -> bool:
        return host.lower().rstrip(".") in self.names

    def has_address(self, address: Address) -> bool:
        return any(address in network for network in self.networks if network.version == address.version)


def is_public(address: Address) -> bool:
    """Whether an address belongs to the open internet; of an IPv6 address, an IPv4 address inside it must, too."""
    if isinstance(address, IPv6Address) and address in _NAT64:
        return is_public(IPv4Address(int(address) & 0xFFFFFFFF))
    if not address.is_global or address.is_multicast or address.is_reserved or address.is_unspecified:
        return False
    if any(address in network for network in _NEVER_PUBLIC if network.version == address.version):
        return False
    return all(is_public(inner) for inner in embedded_ipv4(address))


def embedded_ipv4(address: Address) -> list[IPv4Address]:
    """The IPv4 addresses that a tunnel (6to4, Teredo, ISATAP) may deliver a packet for this IPv6 address to."""
    if isinstance(address, IPv4Address):
        return []
    tunnel_ends = [address.sixtofour] if address.sixtofour is not None else []
    if (int(address) >> 32) & 0xFDFFFFFF == _ISATAP_INTERFACE_PREFIX:  # whether or not the "globally unique" bit is set
        tunnel_ends.append(IPv4Address(int(address) & 0xFFFFFFFF))
    return tunnel_ends + list(address.teredo or ())


def literal_address(host: str) -> Address | None:
    """The address that a host is written as, in any spelling that libc accepts (`2130706433`, `0x7f.1`, `[::1]`).

    None if the host is a name.
    """
    bare = host.strip("[]").partition("%")[0]
    try:
        return _unwrapped(ipaddress.ip_address(bare))
    except ValueError:
        pass
    try:
        return IPv4Address(socket.inet_aton(bare)) if bare and not bare.isspace() else None
    except OSError:
        return None


def allowed_addresses(host: str, port: int, allow: AllowList, resolve: Resolver) -> list[str]:
    """The addresses of a host that may be connected to; every one of them is checked.

    One private address among public ones refuses the whole host, because the next look-up may return that one first.

    Raises:
        FetchError: `private_address`, or `dns` if the name has no address.
    """
    literal = literal_address(host)
    texts = [str(literal)] if literal is not None else resolve(host, port)
    if not texts:
        raise FetchError("dns", f"{host} has no address", may_pass=True)
    if allow.has_name(host):
        return texts
    for text in texts:
        address = _unwrapped(ipaddress.ip_address(text.partition("%")[0]))
        if not allow.has_address(address) and not is_public(address):
            raise FetchError("private_address", f"{host} is {address}, which is not a public address")
    return texts


def _unwrapped(address: Address) -> Address:
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped if mapped is not None else address


def system_resolver(host: str, port: int) -> list[str]:
    """The addresses that getaddrinfo returns, in its order, without duplicates."""
    entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in entries))


def resolve_within(resolve: Resolver, host: str, port: int, seconds: float) -> list[str]:
    """Look a name up and wait at most `seconds`; libc's own look-up has no time limit.

    Raises:
        FetchError: `dns`. A later try may succeed unless the name does not exist.
    """
    answers: queue.SimpleQueue[list[str] | Exception] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            answers.put(resolve(host, port))
        except (OSError, UnicodeError) as error:
            answers.put(error)

    threading.Thread(target=look_up, name=f"dns {host}", daemon=True).start()
    try:
        answer = answers.get(timeout=max(seconds, 0.001))
    except queue.Empty:
        raise FetchError("dns", f"{host}: no answer within {seconds:.0f} s", may_pass=True) from None
    if isinstance(answer, Exception):
        final = isinstance(answer, UnicodeError) or getattr(answer, "errno", None) == socket.EAI_NONAME
        raise FetchError("dns", f"{host}: {answer}", may_pass=not final)
    return answer
