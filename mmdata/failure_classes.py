"""Groups of the error classes that failures are counted by: what the classes of a group have in common."""

from __future__ import annotations

DECODING_ERRORS = frozenset({"not_an_image", "undecodable", "unknown_colours"})
"""The status is `failed_to_resize`: the file was fetched, but no picture can be made of it."""

HOST_FAULTS = frozenset({"dns", "timeout", "deadline", "connection_refused", "connection_reset", "network", "tls"})
"""Caused by the host, not by one URL. After enough of them in a row the host is skipped."""

RATE_LIMIT_CODES = frozenset({420, 429, 430, 503, 509, 529, 999})
"""HTTP codes by which a server says that it gets too many requests: standard ones, and those of some sites."""

TEMPORARY_CODES = frozenset({408, 425, 500, 502, 504, 520, 521, 522, 523, 524})
"""Further HTTP codes after which a later try may succeed."""

SITE_BLOCKED, HOST_BLOCKED, HOST_DOWN = "site_blocked", "host_blocked", "host_down"

BLOCKS = frozenset({SITE_BLOCKED, *(f"http_{code}" for code in RATE_LIMIT_CODES)})
"""A host turns us away, whatever the URL. After enough of them the host is left alone."""
