"""Who asks, what is accepted, and which of the configured headers go where."""

from __future__ import annotations

import pytest

from mmdata import __version__
from mmdata.config import Download
from mmdata.config.media import NO_CONTACT
from mmdata.download.images import fetch_image
from tests.support.hostile_server import HostileServer, answer


def test_a_picture_is_asked_for_as_one(web, settings):
    fetch_image(web.url("/jpg/1"), settings())
    assert "Accept: image/*,*/*;q=0.8\r\n" in web.requests["/jpg/1"]
    fetch_image(web.url("/jpg/2"), settings(headers={"accept": "image/jpeg", "Referer": "https://gallery.example/"}))
    assert "Accept: image/jpeg\r\n" in web.requests["/jpg/2"]
    assert "Referer: https://gallery.example/\r\n" in web.requests["/jpg/2"]


@pytest.mark.parametrize(
    ("settings", "agent"),
    [
        ({}, f"mmdata/{__version__} ({NO_CONTACT})"),
        ({"contact": "data@lab.example"}, f"mmdata/{__version__} (+data@lab.example)"),
        ({"user_agent": "LabBot/2 (us)"}, "LabBot/2 (us)"),
        ({"user_agent": "LabBot/2", "contact": "https://lab.example/bot"}, "LabBot/2 (+https://lab.example/bot)"),
    ],
)
def test_the_agent_says_who_asks_and_where_to_complain(settings, agent):
    assert Download(**settings).agent == agent


def test_credentials_go_to_the_first_host_only(web, settings):
    headers = {"Authorization": "Bearer x", "Cookie": "login=1", "X-Api-Key": "k", "Referer": "https://a.example/"}
    with HostileServer("127.0.0.2") as first:
        first.files["/there"] = answer(b"", "302 Found", Location="/away", Set_Cookie="b=2")
        first.files["/away"] = answer(b"", "302 Found", Location=web.url("/jpg/1"))
        assert fetch_image(first.url("/there"), settings(headers=headers)).failure is None
        assert "Authorization: Bearer x\r\n" in first.requests["/away"]
        assert "Cookie: login=1; b=2\r\n" in first.requests["/away"]
    sent = web.requests["/jpg/1"]
    assert "Referer: https://a.example/\r\n" in sent
    assert not any(name in sent for name in ("Authorization", "Cookie", "Api-Key"))


@pytest.mark.parametrize(
    "changes",
    [
        {"headers": {"Host": "other.example"}},
        {"headers": {"user-agent": "x"}},
        {"headers": {"X": "a\r\nY: b"}},
        {"headers": {"X Y": "a"}},
        {"headers": {"X": "a", "x": "b"}},
        {"headers": {"X": "\u6d77"}},
        {"user_agent": "a\nb"},
        {"contact": ""},
    ],
)
def test_headers_that_would_break_a_request_are_refused(changes):
    with pytest.raises(ValueError, match=r"header|mmdata|ASCII"):
        Download(**changes)


def test_credentials_are_not_in_the_text_of_the_settings():
    download = Download(headers={"Cookie": "login=hidden"}, proxy="http://me:hidden@proxy.example:8080")
    assert "hidden" not in f"{download!r} {download}"
