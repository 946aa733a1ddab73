"""The headers of our requests: who asks, what is accepted, and the further headers of the configuration."""

from __future__ import annotations

import urllib.request

from mmdata.config import Download
from mmdata.web.limits import Fetch

ACCEPT = "image/*,*/*;q=0.8"
"""Some servers send a picture only to those who ask for one. No format is named: a server may prefer a rare one."""


def request_headers(download: Download, request: urllib.request.Request, fetch: Fetch) -> dict[str, str]:
    """The headers of one request. Those with credentials are left out for other hosts than the first of the fetch."""
    fetch.first_host = fetch.first_host or request.host
    is_first_host = request.host == fetch.first_host
    headers = {} if request.has_header("Accept") else {"Accept": ACCEPT}
    headers |= {
        name.capitalize(): value
        for name, value in download.headers.items()
        if is_first_host or not download.is_secret_header(name)
    }
    # no encoding, because the hash of a source is that of the file itself
    return {**headers, "User-agent": download.agent, "Accept-encoding": "identity"}
