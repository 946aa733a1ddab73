"""X-Robots-Tag: what a server says may not be done with what it sends."""

from __future__ import annotations

import re
from collections.abc import Iterable

DISALLOWING = frozenset({"noai", "noimageai", "noindex", "noimageindex", "none"})
"""Directives that keep a picture out of a corpus; `none` is short for noindex and nofollow."""

_WITH_VALUE = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})
"""Directives with a colon of their own, which is not the one after a robot's name."""


def disallows(headers: Iterable[str], user_agent: str) -> str | None:
    """The first directive that speaks against our use, or None.

    A header is a list of directives, and a name with a colon before one bounds it and those after it to that robot:
    `noai, noindex`, `mmdata: noai`, `otherbot: noindex, mmdata: noai`, `max-image-preview: large, noimageai`.

    Args:
        headers: the values of all X-Robots-Tag headers of a response.
        user_agent: our User-Agent; its first word, without a version, is our name.
    """
    ours = {"*", product(user_agent)}
    for header in headers:
        robot = "*"
        for piece in header.lower().split(","):
            name, colon, rest = piece.partition(":")
            if colon and name.strip() not in _WITH_VALUE:
                robot, piece = name.strip(), rest  # noqa: PLW2901 - what is left of it
            if robot in ours and piece.strip() in DISALLOWING:
                return piece.strip()
    return None


def product(user_agent: str) -> str:
    """The product name of a User-Agent, in lower case: `MMData/1.0 (+https://…)` is `mmdata`."""
    found = re.match(r"[^\s/(;]+", user_agent.strip())
    return found.group().lower() if found else ""
