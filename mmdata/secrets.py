"""Keeping credentials out of what is shown: manifests, tables, logs."""

from __future__ import annotations

import re

# A password may hold an @ or a slash of its own; what follows a host's colon is a port if it is a number.
_USERINFO = re.compile(r"(?<=://)[^\s/:@]+(?::(?!\d+(?:[/?#\s]|$))\S*)?@")
_SIGNED = re.compile(r"(?i)([?&](?:[^=&#\s]*(?:token|secret|signature|password|credential)[^=&#\s]*|sig|key)=)[^&#\s]+")


def without_credentials(text: str) -> str:
    """Text with the user names, passwords and signing parameters of the URLs in it taken out."""
    return _USERINFO.sub("", _SIGNED.sub(r"\1…", text))
