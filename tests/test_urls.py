"""The canonical form, key, host and registrable domain of a URL; the column forms agree with the functions."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.urls import (
    canonical_url,
    domains_of,
    host_and_port,
    host_and_port_expr,
    host_name,
    host_name_expr,
    registrable_domain,
    url_key,
)

HOSTS = {
    "http://Example.COM/a": ("example.com", "example.com"),
    "https://example.com:8443/x": ("example.com:8443", "example.com"),
    "https://example.com./": ("example.com.", "example.com"),
    "https://user:secret@example.com:8443?q=1": ("example.com:8443", "example.com"),
    "https://user@corp@example.com/a@b": ("example.com", "example.com"),
    "https://example.com/?next=http://other.example/": ("example.com", "example.com"),
    "http://[2001:DB8::1]:8080/x": ("[2001:db8::1]:8080", "2001:db8::1"),
    "http://[::1]": ("[::1]", "::1"),
    "http://192.0.2.1:80/": ("192.0.2.1:80", "192.0.2.1"),
    "https://Faß.de:8443/x": ("xn--fa-hia.de:8443", "xn--fa-hia.de"),
    "https://me@bücher.example./": ("xn--bcher-kva.example.", "xn--bcher-kva.example"),
    "ftp://files.example/": ("files.example", "files.example"),
    "https:///nothing": ("", ""),
    "example.com/no-scheme": ("", ""),
    "": ("", ""),
}
"""URL -> its host and port, and its host alone."""


@pytest.mark.parametrize(
    ("spelled", "canonical"),
    [
        ("HTTP://Example.COM:80/a b#top", "http://example.com/a%20b"),
        ("https://example.com:443", "https://example.com/"),
        ("https://example.com:8443/x?b=1&a=%e4", "https://example.com:8443/x?b=1&a=%E4"),
        (" https://example.com./ ", "https://example.com/"),
        ("https://bücher.example/", "https://xn--bcher-kva.example/"),
        ("https://faß.de/", "https://xn--fa-hia.de/"),
        ("https://FAẞ.de/", "https://xn--fa-hia.de/"),
        ("https://βόλος.example/", "https://xn--nxasmm1c.example/"),
        ("https://☃.example/", "https://xn--n3h.example/"),
        ("https://a_b.Bücher。example:443/", "https://a_b.xn--bcher-kva.example/"),
        ("https://\uff11\uff12\uff17.\uff10.0.1/", "https://127.0.0.1/"),
        ("https://xn--fa-hia.de/", "https://xn--fa-hia.de/"),
        ("http://host.example/\ud83d.jpg?\udc00", "http://host.example/%EF%BF%BD.jpg?%EF%BF%BD"),
        ("http://\ud83d.example/", "http://\ufffd.example/"),
        ("http://[::1]:80/x", "http://[::1]/x"),
        ("http://[::1]/x", "http://[::1]/x"),
        ("not a url", "not a url"),
        ("http://[broken/", "http://[broken/"),
    ],
)
def test_one_url_has_one_spelling(spelled: str, canonical: str) -> None:
    assert canonical_url(spelled) == canonical


ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=60)
"""Halves of surrogate pairs, which JSON can hold, included."""


@given(ANY_TEXT | ANY_TEXT.map("http://host.example/".__add__) | ANY_TEXT.map("http://".__add__))
def test_canonical_url_is_idempotent_and_never_raises(text: str) -> None:
    once = canonical_url(text)
    assert canonical_url(once) == once
    once.encode()  # it can be hashed and stored
    assert host_and_port(text) == host_and_port(text).lower()
    url_key(text)


def test_a_long_foreign_host_takes_no_time() -> None:
    url = "http://" + "ß" * 1_000_000 + "/"
    assert canonical_url(url) == url


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("http://Example.com/a#b", "example.com/a"),
        ("https://example.com:443/a", "example.com/a"),
        ("https://example.com:8443/a", "example.com:8443/a"),
        ("https://example.com", "example.com/"),
        ("ftp://example.com/a", None),
        ("https:///a", None),
        ("example.com/a", None),
    ],
)
def test_urls_are_compared_without_scheme_and_fragment(url: str, key: str | None) -> None:
    assert url_key(url) == key


@pytest.mark.parametrize("url", HOSTS)
def test_host_of_one_url(url: str) -> None:
    assert (host_and_port(url), host_name(url)) == HOSTS[url]


def test_the_host_of_a_column_is_that_of_each_of_its_urls() -> None:
    frame = pl.DataFrame({"url": list(HOSTS)})
    read = frame.select(host_and_port_expr(pl.col("url")), host=host_name_expr(pl.col("url")))
    assert [(row[0] or "", row[1] or "") for row in read.rows()] == list(HOSTS.values())
    assert "" not in read["host"].to_list()


def test_a_url_with_a_broken_address_has_no_host() -> None:
    assert (host_and_port("http://[broken/"), host_name("http://[broken/")) == ("", "")


def test_domains_of_a_host_go_up_to_the_last_label() -> None:
    assert domains_of("a.b.example.org:8080") == ("a.b.example.org", "b.example.org", "example.org", "org")
    assert domains_of("192.0.2.1:80") == ("192.0.2.1",)
    assert domains_of("[2001:db8::1]:80") == ("2001:db8::1",)
    with pytest.raises(ValueError, match="IP"):
        domains_of("[example]")


@pytest.mark.parametrize(
    ("url", "host", "domain"),
    [
        ("https://a.b.example.com/x", "a.b.example.com", "example.com"),
        ("https://example.com:8080/x", "example.com", "example.com"),
        ("http://EXAMPLE.com./x", "example.com", "example.com"),
        ("https://img.example.co.uk/x?u=http://other.org", "img.example.co.uk", "example.co.uk"),
        ("https://example.com.au", "example.com.au", "example.com.au"),
        ("https://co.uk/", "co.uk", "co.uk"),
        ("https://me.example.github.io/", "me.example.github.io", "example.github.io"),
        ("https://other.io/", "other.io", "other.io"),
        ("https://user:pw@example.org/x@y", "example.org", "example.org"),
        ("http://93.184.216.34/x", "93.184.216.34", "93.184.216.34"),
        ("http://[2606:4700::1]:80/x", "2606:4700::1", "2606:4700::1"),
        ("https://localhost/x", "localhost", "localhost"),
        ("https://xn--bcher-kva.example/", "xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("no url", None, None),
        ("https:///x", None, None),
        (None, None, None),
    ],
)
def test_host_and_registrable_domain_of_a_column(url: str | None, host: str | None, domain: str | None) -> None:
    frame = pl.DataFrame({"url": [url]}, schema={"url": pl.String})
    hosts = host_name_expr(pl.col("url"))
    row = frame.select(host=hosts, domain=registrable_domain(hosts, ["github.io", ".blogspot.com"])).row(0)
    assert row == (host, domain)
