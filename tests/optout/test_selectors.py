"""Selectors in their normal form, and the guess of their kind."""

from __future__ import annotations

import pytest

from mmdata.errors import UserError
from mmdata.optout.selectors import Selector, guess_selector, selector_of


def test_a_selector_has_one_spelling() -> None:
    assert guess_selector("http://Example.org:80/a b?x=1#frag") == selector_of("url", "https://example.org/a%20b?x=1")
    assert guess_selector("*.EXAMPLE.org.") == Selector("domain", "example.org")
    assert guess_selector("A" * 32).kind == "uid"
    for text in ("example", "a/b", "-x.org", "", "ftp://example.org/x"):
        with pytest.raises(UserError):
            guess_selector(text)
