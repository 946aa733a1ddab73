"""Which addresses are public, which hosts are addresses, and look-ups that take too long."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest

from mmdata.errors import UserError
from mmdata.web.addresses import AllowList, embedded_ipv4, is_public, literal_address, resolve_within
from mmdata.web.failures import FetchError


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "64:ff9b::8.8.8.8", "2002:808:808::1"])
def test_the_open_internet_is_open(address):
    """Where a network has IPv6 only, every IPv4 server has an address of NAT64."""
    assert is_public(ip_address(address))


@pytest.mark.parametrize(
    ("host", "address"),
    [("2130706433", "127.0.0.1"), ("0x7f.1", "127.0.0.1"), ("[::1]", "::1"), ("::ffff:10.0.0.1", "10.0.0.1")],
)
def test_an_address_is_read_in_all_its_spellings(host: str, address: str) -> None:
    assert literal_address(host) == ip_address(address)


@pytest.mark.parametrize("host", ["example.org", "", " ", "1.2.3.4.5"])
def test_a_name_is_not_an_address(host: str) -> None:
    assert literal_address(host) is None


def test_the_address_inside_a_tunnel_address_counts() -> None:
    assert embedded_ipv4(IPv6Address("2002:a00:1::1")) == [IPv4Address("10.0.0.1")]
    assert not is_public(IPv6Address("2002:a00:1::1"))
    assert not is_public(IPv6Address("64:ff9b::10.0.0.1"))
    assert not is_public(IPv6Address("2600::200:5efe:10.0.0.1"))


def test_the_list_of_allowed_hosts_takes_names_addresses_and_networks() -> None:
    allowed = AllowList(["Mirror.Internal.", "10.0.0.0/8", "[fd00::1]"])
    assert allowed.has_name("mirror.internal")
    assert not allowed.has_name("other.internal")
    assert allowed.has_address(ip_address("10.1.2.3"))
    assert allowed.has_address(ip_address("fd00::1"))
    assert not allowed.has_address(ip_address("11.0.0.1"))
    with pytest.raises(UserError, match=r"'a/b' is neither a host name nor a network\. Remedy"):
        AllowList(["a/b"])


def test_a_look_up_says_whether_a_later_one_may_succeed() -> None:
    def unknown_name(host: str, port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    def busy_server(host: str, port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    for resolve, may_pass in ((unknown_name, False), (busy_server, True)):
        with pytest.raises(FetchError) as failure:
            resolve_within(resolve, "name.example", 80, 5)
        assert (failure.value.error, failure.value.may_pass) == ("dns", may_pass)
    assert resolve_within(lambda host, port: ["192.0.2.1"], "name.example", 80, 5) == ["192.0.2.1"]
