"""X-Robots-Tag in the forms that servers write it."""

from __future__ import annotations

import pytest

from mmdata.web.robots import disallowing_directive, product_name


@pytest.mark.parametrize(
    ("headers", "directive"),
    [
        ([], None),
        (["all"], None),
        (["nofollow, noarchive"], None),
        (["noai"], "noai"),
        (["NOAI, NOIMAGEAI"], "noai"),
        ([" noindex "], "noindex"),
        (["nofollow", "noimageindex"], "noimageindex"),
        (["none"], "none"),
        (["mmdata: noai"], "noai"),
        (["MMData : noai"], "noai"),
        (["*: noai"], "noai"),
        (["otherbot: noai"], None),
        (["otherbot: noindex, noai"], None),
        (["otherbot: noindex, mmdata: noimageai"], "noimageai"),
        (["noai, otherbot: nofollow"], "noai"),
        (["otherbot: noindex", "noai"], "noai"),
        (["unavailable_after: 25 Jun 2010 15:00:00 PST"], None),
        (["max-image-preview: large, noai"], "noai"),
        (["max-snippet:-1, max-video-preview:-1"], None),
        (["noaix, xnoai"], None),
        ([":::,,,"], None),
        ([""], None),
    ],
)
def test_directives_that_concern_us_are_found(headers, directive):
    assert disallowing_directive(headers, "mmdata/1.0 (+https://example.com)") == directive


@pytest.mark.parametrize(
    ("user_agent", "name"),
    [("mmdata", "mmdata"), ("MMData/2.1 (x)", "mmdata"), ("My-Bot; hello", "my-bot"), ("", ""), ("/1", "")],
)
def test_our_name_is_the_user_agents_first_word(user_agent, name):
    assert product_name(user_agent) == name
