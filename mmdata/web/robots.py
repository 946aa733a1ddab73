"""Reads X-Robots-Tag and TDM-Reservation, headers by which a server forbids uses of its answer. Used by the guard."""

from __future__ import annotations

import re
from collections.abc import Iterable
from email.message import Message

DISALLOWING_DIRECTIVES = frozenset({"noai", "noimageai", "noindex", "noimageindex", "none"})
"""Directives that keep a medium out of a corpus; `none` is short for noindex and nofollow."""

_DIRECTIVES_WITH_VALUE = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})
"""Directives that contain a colon; it must not be taken for the colon after a robot's name."""


def disallowing_directive(headers: Iterable[str], user_agent: str) -> str | None:
    """The first directive that forbids our use; None if none does.

    A header is a list of directives. A robot's name and a colon limit the directives that follow to that robot:
    `noai, noindex`, `mmdata: noai`, `otherbot: noindex, mmdata: noai`, `max-image-preview: large, noimageai`.

    Args:
        headers: the values of all X-Robots-Tag headers of a response.
        user_agent: our User-Agent; its first word, without the version, is our name.
    """
    ours = {"*", product_name(user_agent)}
    for header in headers:
        robot = "*"
        for piece in header.lower().split(","):
            name, colon, rest = piece.partition(":")
            if colon and name.strip() not in _DIRECTIVES_WITH_VALUE:
                robot, piece = name.strip(), rest  # noqa: PLW2901 - the rest of the piece
            if robot in ours and piece.strip() in DISALLOWING_DIRECTIVES:
                return piece.strip()
    return None


def tdm_reservation(headers: Message) -> str | None:
    """What the answer says if its owner reserves the right of text and data mining (W3C's TDMRep); None if not.

    `TDM-Reservation: 1` reserves it. `TDM-Policy` names the page that says on which terms it is granted.
    """
    if not any(value.strip() == "1" for value in headers.get_all("TDM-Reservation", [])):
        return None
    policy = headers.get("TDM-Policy")
    return "TDM-Reservation: 1" if not policy else f"TDM-Reservation: 1, TDM-Policy: {policy}"


def product_name(user_agent: str) -> str:
    """The product name of a User-Agent, in lower case: `MMData/1.0 (+https://…)` is `mmdata`."""
    first_word = re.match(r"[^\s/(;]+", user_agent.strip())
    return first_word.group().lower() if first_word else ""
