"""What the errors of yt-dlp mean: which of them pass by themselves, and which are a block of the whole site.

yt-dlp has one error class for nearly everything, and passes on what a site says; so the texts are all there is to go
by. docs/video.md shows the table. A text that nobody knows may pass: it is tried `download.max_attempts` times.
"""

from __future__ import annotations

import re

from mmdata.failure_classes import SITE_BLOCKED
from mmdata.web.failures import FetchError

SITE_ERRORS: tuple[tuple[str, bool, str], ...] = (
    # error class, whether it may pass, texts; the first line that matches counts
    (
        SITE_BLOCKED,
        True,
        r"not a bot|captcha|rate.?limit|too many requests|http error 429|unusual traffic|automated quer"
        r"|(?:blocked|rejected) by server"
        r"|content isn't available, try again later|your ip (?:address )?(?:is|has been)|tls fingerprint|fresh cookies",
    ),
    (
        "site_private",
        False,
        r"private|privacy settings|protected by a password|password|not been made available|given you permission",
    ),
    (
        "site_geo",
        False,
        r"(?:in|from|outside) your (?:country|location|region)|due to your location|geo.?(?:restrict|block)",
    ),
    (
        "site_age",
        False,
        r"confirm your age|age.?(?:restrict|verif)|inappropriate for some|may not be appropriate|sensitive content",
    ),
    ("site_copyright", False, r"copyright|who has blocked it"),
    (
        "site_removed",
        False,
        r"been (?:removed|deleted|terminated|suspended|closed|taken down)|account .*(?:terminated|suspended|closed)"
        r"|http error 4(?:04|10)|no longer available|does(?: not|n't) exist|violat",
    ),
    (
        "site_members",
        False,
        r"members?.only|channel's members|join this channel|premium|purchase|payment|supporter|subscribers?.only"
        r"|rent(?:al)? ",
    ),
    (
        "site_upcoming",
        True,
        r"premier(?:e|es|ing)\b|(?:will )?(?:begin|start)s? (?:in|at|on|shortly)|live (?:event|stream)|livestream"
        r"|is (?:offline|not live)|not currently live|not yet available|scheduled|being processed"
        r"|processing this video",
    ),
    ("site_drm", False, r"\bdrm\b"),
    # a video server answers so when it throttles; what a single video forbids has a text above
    (SITE_BLOCKED, True, r"http error (?:403|412)"),
    (
        "site_later",
        True,
        r"try again|try later|on this app|needs to be reloaded|check back|temporar|timed out|timeout"
        r"|http error (?:408|425|5\d\d)"
        r"|went wrong|an error occurred|internal (?:server )?error|unavailable at this time|connection|reset by peer"
        r"|incomplete|\beof\b|did not get any data|giving up after|urlopen error|getaddrinfo"
        r"|unable to download (?:api|web)",
    ),
    ("site_login", False, r"log.?in|logged.?in|sign in|registered users|authentication|have access"),
    ("site_removed", False, r"unavailable|(?:video|content) (?:is|isn't|not) (?:not )?available|may be deleted"),
    ("site_failed", False, r"unsupported url|is not a valid url|no suitable extractor|unsupported url scheme"),
)

MAX_TEXT_CHARS = 2_000
_PLAIN_QUOTES = str.maketrans("\u2018\u2019", "''")
_SECONDS = {
    "second": 1.0,
    "minute": 60.0,
    "hour": 3_600.0,
    "day": 86_400.0,
    "week": 7 * 86_400.0,
    "month": 30 * 86_400.0,
    "year": 365 * 86_400.0,
}
_TEXTS = tuple((error, may_pass, re.compile(texts)) for error, may_pass, texts in SITE_ERRORS)
_BEGINS_IN = re.compile(rf"\bin (\d{{1,4}}) ({'|'.join(_SECONDS)})s?\b")


def site_error(text: str) -> FetchError:
    """The failure that a text of yt-dlp tells, with the time to wait if it says when a video begins."""
    plain = text[:MAX_TEXT_CHARS].lower().translate(_PLAIN_QUOTES)
    for error, may_pass, texts in _TEXTS:
        if texts.search(plain):
            begins = _BEGINS_IN.search(plain) if error == "site_upcoming" else None
            wait_s = int(begins.group(1)) * _SECONDS[begins.group(2)] if begins else None
            return FetchError(error, text, may_pass, wait_s)
    return FetchError("site_failed", text, may_pass=True)
