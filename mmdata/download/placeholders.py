"""Recognises placeholders: the picture "image removed" of a host, to which the URLs of many lost pictures redirect.

Only the targets of redirects are looked at, so copies of a picture at many addresses stay what they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

_SUBJECT = "(?:image|img|photo|picture|pic|file|media|item)"
_NAME = re.compile(
    rf"(?:{_SUBJECT}?[-_ ]?(?:removed|unavailable|not[-_ ]?available|not[-_ ]?found|deleted|missing)"
    rf"|no[-_ ]?{_SUBJECT}(?:[-_ ]?(?:available|found))?|placeholder|404|default[-_ ]?{_SUBJECT})"
    r"(?:[-_ ](?:[a-z]{1,6}|[0-9]{1,4}(?:x[0-9]{1,4})?))?(?:\.[a-z]{3,4})?",
    re.IGNORECASE,
)
"""Names such as `removed.png` (imgur), `photo_unavailable_l.png` (Flickr), `404.gif` (TinyPic), `no-image.jpg`."""


@dataclass(frozen=True, slots=True)
class Moved:
    """A picture that came from another file than the one that its URL names.

    Args:
        captions: of the rows that have the URL.
    """

    url: str
    final_url: str
    sha256: str
    captions: frozenset[str]


def is_moved(url: str, final_url: str | None) -> bool:
    """Whether a redirect led to a file with another name; another host, scheme or query alone is the same picture."""
    return final_url is not None and file_name(url) != file_name(final_url)


def placeholders(pictures: Iterable[Moved], least: int) -> Iterator[tuple[str, str]]:
    """The URLs that lead to a placeholder, each with the reason in words.

    A placeholder has a name that says so, or at least `least` URLs with as many different captions lead to the same
    bytes.
    """
    by_content: dict[str, list[Moved]] = {}
    for picture in pictures:
        by_content.setdefault(picture.sha256, []).append(picture)
    for sharers in by_content.values():
        captions = frozenset[str]().union(*(picture.captions for picture in sharers))
        urls, is_shared = len(sharers), len(sharers) >= least and len(captions) >= least
        for picture in sharers:
            target = f"redirected to {picture.final_url}"
            if _NAME.fullmatch(file_name(picture.final_url)):
                yield picture.url, f"{target}, whose name is that of a placeholder"
            elif is_shared:
                yield picture.url, f"{target}, as {urls - 1} other URLs of the slice are"


def file_name(url: str) -> str:
    """The last part of a URL's path, decoded: `a b.jpg` of `https://host/x/a%20b.jpg?size=2`."""
    return unquote(urlsplit(url).path.rpartition("/")[2])
