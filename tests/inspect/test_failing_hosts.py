"""Hosts by their failures."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from mmdata.errors import DataError
from mmdata.inspect.failing_hosts import failing_hosts, slice_failures
from mmdata.storage.tables import write_table
from mmdata.urls import host_and_port
from mmdata.workspace.layout import Workspace

URLS = (
    "https://a.example/1.jpg",
    "https://A.example:8443/2.jpg?x=https://other.example/",
    "http://user:p@ss@b.example/3",
    "http://b.example?q",
    "http://b.example#f",
)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(str(tmp_path))


def write(workspace: Workspace, name: str, failures: list[tuple[str | None, str | None]]) -> None:
    uids = [f"{number:032x}" for number in range(len(failures))]
    urls, errors = [url for url, _ in failures], [error for _, error in failures]
    write_table(workspace.table("web-000000", "rows", name), pa.table({"uid": uids, "url": urls}))
    write_table(workspace.table("web-000000", "media", name), pa.table({"uid": uids, "error": errors}))


def test_a_host_is_what_politeness_is_counted_by(workspace: Workspace) -> None:
    write(workspace, "0000", [(url, "dns") for url in URLS])
    found = slice_failures(workspace, "web-000000", "0000")
    assert {host for host, _ in found} == {host_and_port(url) for url in URLS}


def test_the_worst_hosts_come_first_with_their_error(workspace: Workspace) -> None:
    write(workspace, "0000", [(URLS[0], "dns")] * 3 + [(URLS[0], None), (None, "bad_row")])
    write(workspace, "0001", [(URLS[0], "timeout"), (URLS[4], "http_404"), (URLS[4], "http_404")])
    found = failing_hosts(workspace, [("web-000000", "0000"), ("web-000000", "0001")], limit=2)
    assert found.hosts == [("a.example", "dns", 3), ("b.example", "http_404", 2)]
    assert (found.looked_at, found.slices, found.unreadable) == (2, 2, 0)


def test_of_many_slices_some_are_read_and_a_broken_one_is_counted(workspace: Workspace) -> None:
    slices = [("web-000000", f"{number:04d}") for number in range(10)]
    for _, name in slices[:9]:
        write(workspace, name, [(URLS[0], "dns")])
    assert failing_hosts(workspace, slices, limit=5, most=3).hosts == [("a.example", "dns", 3)]
    assert failing_hosts(workspace, slices, limit=5).unreadable == 1


def test_tables_that_do_not_belong_together_are_not_joined(workspace: Workspace) -> None:
    write(workspace, "0000", [(URLS[0], "dns"), (URLS[1], None)])
    write_table(workspace.table("web-000000", "media", "0000"), pa.table({"uid": ["0" * 32], "error": ["dns"]}))
    with pytest.raises(DataError, match="media is older than rows"):
        slice_failures(workspace, "web-000000", "0000")
