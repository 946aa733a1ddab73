"""The settings that decide whether a row is refused or its fetch fails; when one changes, such rows are due again.

They are kept in the stamps of the stage `media`. A slice that runs asks all rows whose error a changed setting may have
caused, so afterwards its failures belong to the settings in its stamp. docs/refresh.md has the table.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from mmdata.config import Corpus
from mmdata.config.setting_changes import Change
from mmdata.failure_classes import BLOCKS, DECODING_ERRORS, HOST_BLOCKED, HOST_DOWN, HOST_FAULTS, TEMPORARY_CODES
from mmdata.fingerprint import fingerprint

READERS = 2
"""Raise it when mmdata reads files or answers that it could not read: rows that failed so are tried once again."""

CLIP_KINDS = frozenset({"howto100m", "video", "audio"})
"""Kinds of sources whose samples are cut from files."""

LIMITS = (
    "download.max_bytes",
    "download.max_pixels",
    "download.respect_robots",
    "clips.max_bytes",
    "clips.max_duration_s",
)
"""Settings that only refuse: what is stored under a narrower limit is what a wider one would store."""

_TEMPORARY = HOST_FAULTS | BLOCKS | {"truncated", "site_later", "site_upcoming", "site_failed", "unexpected"}
_TEMPORARY |= {f"http_{code}" for code in TEMPORARY_CODES}
_TURNED_AWAY = BLOCKS | {
    f"http_{code}" for code in (400, 401, 402, 403, 405, 406, 407, 409, 412, 415, 418, 421, 426, 451)
}
_FOR_OUR_ADDRESS = HOST_FAULTS | _TURNED_AWAY | {HOST_BLOCKED, HOST_DOWN, "proxy", "tls_certificate", "site_geo"}
_FOR_OUR_HEADERS = _TURNED_AWAY | {"robots", "not_an_image", "empty", "too_many_redirects", "bad_response"}
_BY_READERS = DECODING_ERRORS | {"bad_response", "bad_url", "too_many_redirects", "truncated", "empty", "site_failed"}
_BY_READERS |= {"ended_early", "cut_mismatch", "no_video", "no_sound", "decode_timeout", "decoder_crashed"}

ANY_ERROR = None
"""Stands for every error class: the medium is fetched from elsewhere."""


@dataclass(frozen=True, slots=True)
class Deciding:
    """What a setting decides.

    Args:
        errors: error classes of rows that it may have refused or made fail.
        may_help: given the old and the new value, whether such rows may end otherwise now.
        is_secret: the value may hold credentials: only its fingerprint is kept.
    """

    errors: frozenset[str] | None
    may_help: Callable[[Any, Any], bool] = operator.ne
    is_secret: bool = False


def _grew(old: Any, new: Any) -> bool:
    return bool(new > old)


RULES = "source.filter"

DECIDING: Mapping[str, Deciding] = {
    "download.allow_hosts": Deciding(frozenset({"private_address", "bad_port"})),
    "download.ports": Deciding(frozenset({"bad_port"})),
    "download.allow_downgrade": Deciding(frozenset({"downgrade"})),
    "download.proxy": Deciding(_FOR_OUR_ADDRESS, is_secret=True),
    "download.user_agent": Deciding(_FOR_OUR_HEADERS),
    "download.contact": Deciding(_FOR_OUR_HEADERS),
    "download.headers": Deciding(_FOR_OUR_HEADERS | {"http_404"}, is_secret=True),
    "download.placeholder_urls": Deciding(frozenset({"placeholder"})),
    "download.respect_robots": Deciding(frozenset({"robots"}), lambda old, new: old and not new),
    "download.max_bytes": Deciding(frozenset({"too_large"}), _grew),
    "download.max_pixels": Deciding(frozenset({"bomb"}), _grew),
    "download.timeout_s": Deciding(frozenset({"timeout", "network", "site_later"}), _grew),
    "download.deadline_s": Deciding(frozenset({"deadline"}), _grew),
    "download.decode_timeout_s": Deciding(frozenset({"decode_timeout"}), _grew),
    "download.max_attempts": Deciding(_TEMPORARY, _grew),
    "clips.max_bytes": Deciding(frozenset({"too_large", "site_failed"}), _grew),
    "clips.max_duration_s": Deciding(frozenset({"too_long"}), _grew),
    "clips.deadline_s": Deciding(frozenset({"deadline"}), _grew),
    "clips.decode_timeout_s": Deciding(frozenset({"decode_timeout"}), _grew),
    "source.fetch_from": Deciding(ANY_ERROR, is_secret=True),
    RULES: Deciding(frozenset()),  # a change makes every row be judged again, see `rules_changed`
    "yt-dlp": Deciding(frozenset({"site", "site_failed"})),
    "readers": Deciding(_BY_READERS, _grew),
}
"""Setting -> what it decides. Settings that decide stored bytes are in `stage_settings` instead, except the LIMITS."""

_BEFORE: Mapping[str, Any] = {
    "download.allow_hosts": [],
    "download.ports": None,
    "download.allow_downgrade": True,
    "download.proxy": None,
    "download.user_agent": "mmdata",
    "download.contact": "none was sent",
    "download.headers": {},
    "download.timeout_s": 10,
    "download.deadline_s": 60,
    "download.max_attempts": 5,
    "clips.deadline_s": 1800,
    "clips.decode_timeout_s": 600,
    "readers": 1,
}
"""What counts for a stamp of version 0.1.0, which did not keep these settings: the defaults of then."""


def deciding_settings(corpus: Corpus, source_name: str) -> dict[str, Any]:
    """The present values of the settings in `DECIDING` that apply to a source, as JSON values."""
    source = next((source for source in corpus.sources if source.name == source_name), None)
    if source is None:
        return {}
    rules = {RULES: source.filter.decided_by()} if source.filter else {}
    if source.kind == "text":
        return rules
    values: dict[str, Any] = {f"download.{name}": value for name, value in corpus.download.model_dump().items()}
    values["readers"] = READERS
    if source.kind in CLIP_KINDS:
        values |= {f"clips.{name}": value for name, value in corpus.clips.model_dump().items()}
        values |= {"source.fetch_from": source.fetch_from, "yt-dlp": _yt_dlp_version()}
    kept = rules | {name: values[name] for name in DECIDING if name in values}
    return {name: fingerprint(value) if value and DECIDING[name].is_secret else value for name, value in kept.items()}


@dataclass(frozen=True, slots=True)
class DueAgain:
    """The rows that changed settings make due again.

    Args:
        changes: the settings that changed so that these rows may end otherwise now.
        rows: error class -> number of rows.
    """

    changes: tuple[Change, ...] = ()
    rows: Mapping[str, int] | None = None

    @property
    def errors(self) -> frozenset[str]:
        """The error classes of the rows."""
        return frozenset(self.rows or ())

    def __str__(self) -> str:
        if not self.rows:
            return ""
        counts = ", ".join(f"{error} {count:,}" for error, count in sorted(self.rows.items()))
        return f"{sum(self.rows.values()):,} rows ({counts}), because of {', '.join(map(str, self.changes))}"


def due_again(before: Mapping[str, Any], now: Mapping[str, Any], reasons: Mapping[str, int]) -> DueAgain:
    """Which failed rows are due again.

    Args:
        before: the deciding settings in a stamp; those that it lacks have the defaults of version 0.1.0.
        now: the present ones.
        reasons: error class -> rows, of the stamp.
    """
    changes: list[Change] = []
    rows: dict[str, int] = {}
    for name, new in now.items():
        old, deciding = before.get(name, _BEFORE.get(name, new)), DECIDING[name]
        if old == new or not deciding.may_help(old, new):
            continue
        errors = (
            [error for error in reasons if _is_of_a_fetch(error)] if deciding.errors is ANY_ERROR else deciding.errors
        )
        if affected := {error: reasons[error] for error in errors if reasons.get(error)}:
            changes.append(Change(name, "not shown", "not shown") if deciding.is_secret else Change(name, old, new))
            rows |= affected
    return DueAgain(tuple(changes), rows)


def rules_changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether the source's filter is another one, so that all rows are judged again. What is stored stays stored."""
    return before.get(RULES) != now.get(RULES)


def only_widened(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether no limit is narrower now, so that what was stored before may stay."""
    shared = [name for name in LIMITS if name in before and name in now]
    return all(before[name] == now[name] or DECIDING[name].may_help(before[name], now[name]) for name in shared)


def _is_of_a_fetch(error: str) -> bool:
    return error not in ("opt_out", "hash_mismatch")


@cache
def _yt_dlp_version() -> str | None:
    try:
        return version("yt-dlp")
    except PackageNotFoundError:
        return None
