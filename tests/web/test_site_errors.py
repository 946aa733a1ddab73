"""What real messages of yt-dlp mean: which pass, which are final, and which block the whole site."""

from __future__ import annotations

import pytest

from mmdata.failure_classes import BLOCKS
from mmdata.web.site_errors import MAX_TEXT_CHARS, SITE_ERRORS, site_error

LOGIN = "Use --cookies-from-browser or --cookies for the authentication. See  https://github.com/yt-dlp/yt-dlp/wiki/FAQ"
BUG = "; please report this issue on  https://github.com/yt-dlp/yt-dlp/issues?q= , filling out the appropriate issue"

MESSAGES = [
    (f"[youtube] x: Sign in to confirm you\u2019re not a bot. {LOGIN}", "site_blocked"),
    ("[youtube] x: Sign in to confirm you're not a bot.", "site_blocked"),
    (
        "[youtube] x: Video unavailable. This content isn\u2019t available, try again later. The current session "
        "has been rate-limited by YouTube for up to an hour. It is recommended to use `-t sleep` to add a delay",
        "site_blocked",
    ),
    ("[youtube] x: Video unavailable. YouTube is requiring a captcha challenge before playback", "site_blocked"),
    ("[youtube] x: Unable to download webpage: HTTP Error 429: Too Many Requests", "site_blocked"),
    ("unable to download video data: HTTP Error 403: Forbidden", "site_blocked"),
    ("[BiliBili] x: Request is blocked by server (412), please wait and try later.", "site_blocked"),
    ("[TikTok] x: Your IP address is blocked from accessing this post", "site_blocked"),
    ("We're sorry, but your computer or network may be sending automated queries.", "site_blocked"),
    ("[youtube] x: Sign in to confirm you\u2018re not a bot", "site_blocked"),
    ("[youtube] x: The page needs to be reloaded.", "site_later"),
    ("[youtube] x: The following content is not available on this app. Watch on the latest version", "site_later"),
    ("[youtube] x: Something went wrong. Please try again later.", "site_later"),
    ("[youtube] x: An error occurred. Please try again later.", "site_later"),
    (
        "[youtube] x: Unable to download API page: HTTP Error 503: Service Unavailable (caused by <HTTPError 503>)",
        "site_later",
    ),
    ("unable to download video data: HTTP Error 502: Bad Gateway", "site_later"),
    ("[youtube] x: Unable to download API page: The read operation timed out", "site_later"),
    ("Did not get any data blocks", "site_later"),
    (
        "[generic] Unable to download webpage: <urlopen error [Errno -3] Temporary failure in name resolution>",
        "site_later",
    ),
    ("[youtube] x: This live event will begin in 3 days.", "site_upcoming"),
    ("[youtube] x: This live event will begin in a few moments.", "site_upcoming"),
    ("[youtube] x: This live event has ended.", "site_upcoming"),
    ("[youtube] x: Premieres in 5 hours", "site_upcoming"),
    ("[youtube] x: Premiere will begin shortly", "site_upcoming"),
    ("[youtube] x: This live stream recording is not available.", "site_upcoming"),
    ("[vimeo:event] x: This live event is scheduled for 2026-12-01", "site_upcoming"),
    ("[twitch:stream] x: The channel is not currently live", "site_upcoming"),
    ("[youtube] x: We're processing this video. Check back later.", "site_upcoming"),
    (f"[youtube] x: Private video. Sign in if you've been granted access to this video. {LOGIN}", "site_private"),
    ("[vimeo] x: The creator of this video has not given you permission to embed it on this domain.", "site_private"),
    ("[vimeo] x: This video is protected by a password, use the --video-password option", "site_private"),
    ("[vimeo] x: Because of its privacy settings, this video cannot be played here. (HTTP Error 403)", "site_private"),
    (
        "[youtube] x: The uploader has not made this video available in your country\nYou might want to use a VPN",
        "site_geo",
    ),
    (
        "[youtube] x: Video unavailable. This video contains content from UMG, who has blocked it in your country on "
        "copyright grounds",
        "site_geo",
    ),
    ("[x] This video is not available from your location due to geo restriction", "site_geo"),
    (f"[youtube] x: Sign in to confirm your age. This video may be inappropriate for some users. {LOGIN}", "site_age"),
    (
        "[youtube] x: Video unavailable. This video is no longer available due to a copyright claim by X",
        "site_copyright",
    ),
    ("[youtube] x: This video contains content from WMG, who has blocked it on copyright grounds", "site_copyright"),
    ("[youtube] x: Video unavailable. This video has been removed by the uploader", "site_removed"),
    (
        "[youtube] x: This video is no longer available because the YouTube account associated with this video has "
        "been terminated.",
        "site_removed",
    ),
    ("[youtube] x: This video has been removed for violating YouTube's Terms of Service", "site_removed"),
    ("[youtube] x: Video unavailable", "site_removed"),
    ("[youtube] x: Video unavailable. This video is not available", "site_removed"),
    ("[vimeo] x: Unable to download JSON metadata: HTTP Error 404: Not Found", "site_removed"),
    ("[twitch:vod] x: Video 12 does not exist", "site_removed"),
    (
        "[youtube] x: Join this channel to get access to members-only content like this video, and other perks.",
        "site_members",
    ),
    ("[youtube] x: This video requires payment to watch", "site_members"),
    ("[x] x: This video is DRM protected", "site_drm"),
    ("[tiktok] x: You do not have permission to view this post. Log into an account that has access", "site_login"),
    ("[x] x: This video is only available for registered users. Use --cookies", "site_login"),
    ("Unsupported URL: https://vimeo.com/about", "site_failed"),
]
PASSING = {"site_blocked", "site_later", "site_upcoming"}


@pytest.mark.parametrize(("message", "error"), MESSAGES)
def test_a_message_of_yt_dlp_has_its_class_and_only_some_classes_pass(message: str, error: str) -> None:
    failure = site_error(f"ERROR: {message}")
    assert (failure.error, failure.may_pass) == (error, error in PASSING)
    assert (failure.error in BLOCKS) == (error == "site_blocked")


@pytest.mark.parametrize(
    "message",
    [
        f"[youtube] x: Unable to extract yt initial data{BUG}",
        "[youtube] x: Requested format is not available. Use --list-formats for a list of available formats",
        f"[vimeo] x: No video formats found!{BUG}",
        "KeyError('streams')",
        "",
    ],
)
def test_a_message_that_nobody_knows_may_pass(message: str) -> None:
    failure = site_error(message)
    assert (failure.error, failure.may_pass) == ("site_failed", True)


@pytest.mark.parametrize(
    ("message", "wait_s"),
    [
        ("This live event will begin in 3 days.", 3 * 86_400.0),
        ("Premieres in 5 hours", 18_000.0),
        ("Premieres in 1 minute", 60.0),
        ("This live event will begin in a few moments.", None),
        ("This live event will begin in 99999999999999 days.", None),
        ("An error in 3 days. Try again later.", None),
    ],
)
def test_an_upcoming_video_is_due_when_it_begins(message: str, wait_s: float | None) -> None:
    assert site_error(message).retry_after_s == wait_s


def test_every_line_of_the_table_is_met_by_a_message() -> None:
    assert {error for _, error in MESSAGES} == {error for error, _, _ in SITE_ERRORS}


def test_only_the_beginning_of_a_long_text_is_read() -> None:
    assert site_error("a" * MAX_TEXT_CHARS + " private video").error == "site_failed"
