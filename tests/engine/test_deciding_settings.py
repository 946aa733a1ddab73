"""Which failed rows are due again after which change of a setting."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mmdata.config import Clips, Download
from mmdata.config.load import parse_corpus
from mmdata.config.setting_changes import Change
from mmdata.config.source_filter import SourceFilter
from mmdata.engine.deciding_settings import (
    DECIDING,
    LIMITS,
    READERS,
    deciding_settings,
    due_again,
    only_widened,
    rules_changed,
)
from mmdata.engine.stage_fingerprints import named_settings
from mmdata.workspace.layout import Part

SPEED = {
    "download.host_pause_s",
    "download.min_success_share",
    "download.per_host",
    "download.retries",
    "download.retry_after_s",
    "download.threads",
    "clips.decoders",
    "clips.max_clip_s",  # decides rows
    "clips.max_gap_s",
    "clips.min_clip_s",
    "clips.threads",
}
"""Keys that decide neither what is stored nor whether a row fails for good."""


def corpus(kind: str = "video", source: dict[str, Any] | None = None, **sections: Any) -> Any:
    columns = {} if kind in ("laion", "howto100m") else {"columns": {"url": "u", "caption": "c"}}
    if kind == "howto100m":
        columns = {"captions": "raw.json"}
    if kind == "text":
        columns = {"columns": {"caption": "c"}}
    sources = [{"name": "web", "kind": kind, "files": "a.parquet", **columns, **(source or {})}]
    return parse_corpus({"workspace": "w", "sources": sources, **sections})


def test_every_key_of_the_fetching_decides_bytes_or_failures_or_neither() -> None:
    """A new key must be put where it belongs, or rows stay refused although it was mended."""
    part = Part("web-000000", "web", "a.parquet", 0, 1, "digest")
    stored = set(named_settings(corpus(), part, "media"))
    keys = {f"download.{key}" for key in Download.model_fields} | {f"clips.{key}" for key in Clips.model_fields}
    assert keys - stored - set(DECIDING) == SPEED
    assert stored & set(DECIDING) == set(LIMITS)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"download": {"allow_hosts": ["10.0.0.0/8"]}}, "private_address"),
        ({"download": {"allow_hosts": ["10.0.0.0/8"]}}, "bad_port"),
        ({"download": {"ports": [80, 8080]}}, "bad_port"),
        ({"download": {"allow_downgrade": True}}, "downgrade"),
        ({"download": {"user_agent": "Mozilla/5.0"}}, "http_403"),
        ({"download": {"user_agent": "Mozilla/5.0"}}, "http_406"),
        ({"download": {"user_agent": "Mozilla/5.0"}}, "robots"),
        ({"download": {"contact": "data@lab.example"}}, "http_403"),
        ({"download": {"headers": {"Referer": "https://a.example/"}}}, "http_403"),
        ({"download": {"placeholder_urls": 50}}, "placeholder"),
        ({"download": {"user_agent": "Mozilla/5.0"}}, "not_an_image"),
        ({"download": {"headers": {"Accept": "image/*"}}}, "http_406"),
        ({"download": {"contact": "mailto:me@example.org"}}, "http_403"),
        ({"download": {"decode_timeout_s": 900}}, "decode_timeout"),
        ({"download": {"proxy": "http://10.0.0.1:3128"}}, "http_451"),
        ({"download": {"proxy": "http://10.0.0.1:3128"}}, "timeout"),
        ({"download": {"proxy": "http://10.0.0.1:3128"}}, "site_geo"),
        ({"download": {"respect_robots": False}}, "robots"),
        ({"download": {"max_bytes": 30_000_000}}, "too_large"),
        ({"download": {"max_pixels": 200_000_000}}, "bomb"),
        ({"download": {"timeout_s": 30}}, "timeout"),
        ({"download": {"deadline_s": 90}}, "deadline"),
        ({"download": {"max_attempts": 9}}, "http_503"),
        ({"clips": {"max_bytes": 3_000_000_000}}, "too_large"),
        ({"clips": {"max_duration_s": 20_000}}, "too_long"),
        ({"clips": {"deadline_s": 3600}}, "deadline"),
        ({"clips": {"decode_timeout_s": 900}}, "decode_timeout"),
        ({"source": {"fetch_from": "https://mirror.example/{video_id}.mp4"}}, "site_removed"),
        ({"source": {"fetch_from": "https://mirror.example/{video_id}.mp4"}}, "http_404"),
    ],
)
def test_rows_are_due_again_when_a_setting_changes_that_may_have_decided_them(
    changes: dict[str, Any], error: str
) -> None:
    base = {"download": {"allow_downgrade": False}} if error == "downgrade" else {}
    before = json.loads(json.dumps(deciding_settings(corpus(**base), "web")))  # as it comes out of a stamp
    now = deciding_settings(corpus(**changes), "web")
    reasons = {error: 7, "hash_mismatch": 3, "opt_out": 2}
    again = due_again(before, now, reasons)
    assert (dict(again.rows or {}), len(again.changes)) == ({error: 7}, 1)
    assert f"7 rows ({error} 7), because of " in str(again)
    assert not due_again(now, now, reasons).rows
    assert not due_again(before, now, {"hash_mismatch": 3, "opt_out": 2}).rows


@pytest.mark.parametrize(
    "narrower",
    [
        {"download": {"max_bytes": 1000}},
        {"download": {"max_pixels": 1000}},
        {"download": {"timeout_s": 1}},
        {"clips": {"max_duration_s": 60}},
    ],
)
def test_a_narrower_limit_makes_nothing_due_and_is_not_only_widened(narrower: dict[str, Any]) -> None:
    before, now = deciding_settings(corpus(), "web"), deciding_settings(corpus(**narrower), "web")
    assert not due_again(before, now, dict.fromkeys(("too_large", "bomb", "timeout", "too_long"), 1)).rows
    is_limit = any(before[name] != now[name] for name in LIMITS)
    assert only_widened(before, now) != is_limit
    assert only_widened(now, before)


def test_robots_that_are_respected_again_narrow() -> None:
    lax = deciding_settings(corpus(download={"respect_robots": False}), "web")
    strict = deciding_settings(corpus(), "web")
    assert only_widened(strict, lax)
    assert not only_widened(lax, strict)


def test_values_that_may_hold_credentials_are_kept_as_a_fingerprint_and_not_shown() -> None:
    now = deciding_settings(
        corpus(
            source={"fetch_from": "https://m.example/{video_id}?key=hush"},
            download={"proxy": "http://u:hush@h:1", "headers": {"Authorization": "hush"}},
        ),
        "web",
    )
    again = due_again(deciding_settings(corpus(), "web"), now, {"http_403": 1})
    assert "hush" not in json.dumps(now) + str(again)
    assert {change.name for change in again.changes} == {"download.proxy", "download.headers", "source.fetch_from"}


def test_a_stamp_of_before_counts_as_made_with_the_defaults_of_then() -> None:
    now = deciding_settings(corpus("laion", download={"user_agent": "mmdata", "allow_hosts": ["127.0.0.1"]}), "web")
    reasons = {
        "private_address": 3,
        "http_403": 4,
        "undecodable": 5,
        "unknown_colours": 2,
        "http_404": 6,
        "too_large": 7,
    }
    again = due_again({}, now, reasons)
    assert dict(again.rows or {}) == {"private_address": 3, "http_403": 4, "undecodable": 5, "unknown_colours": 2}
    assert Change("readers", 1, READERS) in again.changes


def test_only_settings_of_the_kind_count() -> None:
    assert deciding_settings(corpus("text"), "web") == {}
    assert not any(name.startswith(("clips.", "source.", "yt")) for name in deciding_settings(corpus("laion"), "web"))
    assert "clips.max_bytes" in deciding_settings(corpus("howto100m"), "web")
    assert deciding_settings(corpus(), "gone") == {}


def test_a_filter_counts_for_every_kind_and_only_where_there_is_one() -> None:
    rules = SourceFilter(min={"similarity": 0.3})
    for kind in ("text", "laion", "howto100m"):
        without = corpus(kind)
        source = without.sources[0].model_copy(update={"filter": rules})
        with_rules = without.model_copy(update={"sources": [source]})
        before, now = deciding_settings(without, "web"), deciding_settings(with_rules, "web")
        assert now == before | {"source.filter": {"min": {"similarity": 0.3}}}
        assert rules_changed(before, now)
        assert rules_changed(now, before)
        assert not rules_changed(now, now)
        assert not due_again(before, now, {"http_404": 3}).rows


def test_a_newer_yt_dlp_asks_again_for_the_pages_that_it_did_not_understand() -> None:
    now = deciding_settings(corpus(), "web")
    before = now | {"yt-dlp": None}
    assert dict(due_again(before, now, {"site": 2, "site_failed": 1, "site_removed": 4}).rows or {}) == {
        "site": 2,
        "site_failed": 1,
    }
