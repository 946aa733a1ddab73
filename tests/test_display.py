"""Credentials stay out of what is shown."""

from __future__ import annotations

import pytest

from mmdata.display import printable, without_credentials


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://user:p@ss@host/x", "https://host/x"),
        ("s3://K:se/cret@bucket", "s3://bucket"),
        ("fetching https://me:pw@host/x failed", "fetching https://host/x failed"),
        ("https://host/x?a=1&X-Amz-Signature=abc&sig=d", "https://host/x?a=1&X-Amz-Signature=…&sig=…"),
        ("https://host/a@b.jpg", "https://host/a@b.jpg"),
        ("https://host:8080/a@b.jpg", "https://host:8080/a@b.jpg"),
        ("inbox/*.parquet", "inbox/*.parquet"),
    ],
)
def test_credentials_in_urls_are_taken_out(text: str, shown: str) -> None:
    assert without_credentials(text) == shown


def test_a_terminal_is_not_steered_by_text_from_outside() -> None:
    assert printable("\x1b]0;owned\x07a\nb\u202e") == "\ufffd]0;owned\ufffda\nb\ufffd"
