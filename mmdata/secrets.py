"""Keeping credentials out of what is shown: manifests, tables, logs."""

from __future__ import annotations

import re

# A password may hold an @ or a slash of its own; what follows a host's colon is a port if it is a number.
_USERINFO = re.compile(r"(?<=://)[^\s/:@]+(?::(?!\d+(?:[/?#\s]|$))\S*)?@")
_SIGNED = re.compile(
    r"(?i)([?&#](?:[^=&#\s]*(?:token|secret|signature|passw|credential|api_?key|access_?key|jwt)[^=&#\s]*|sig|key|auth)=)"
    r"[^&#\s\"']+"
)
# What keys of well-known services look like, wherever they stand: Hugging Face, AWS, GitHub, and a header's own.
_KEYS = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{20,}|(?:AKIA|ASIA)[A-Z0-9]{16}|gh[pousr]_[A-Za-z0-9]{30,}|sk-[A-Za-z0-9_-]{20,})\b"
)
_BEARER = re.compile(r"(?i)\b(bearer|basic) [A-Za-z0-9+/_.=-]{12,}")


def without_credentials(text: str) -> str:
    """Text without the user names, passwords and signing parameters of the URLs in it, and without keys of services."""
    text = _USERINFO.sub("", _SIGNED.sub(r"\1…", text))
    return _BEARER.sub(r"\1 …", _KEYS.sub("…", text))
