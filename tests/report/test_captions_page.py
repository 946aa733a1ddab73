"""The page of captions: escaped, self-contained, right and wrong marked."""

from __future__ import annotations

import io
import re

from PIL import Image

from mmdata.report.captions_page import MAX_CAPTIONS, captions_page
from mmdata.report.model_captions import CaptionedPicture
from mmdata.report.stored import small_picture


def image() -> str | None:
    out = io.BytesIO()
    Image.new("RGB", (300, 200), "red").save(out, "PNG")
    return small_picture(out.getvalue())


def test_captions_stand_beside_their_pictures_and_are_marked() -> None:
    evil = "<script>alert(1)</script>"
    cards = [
        CaptionedPicture("u1", image(), "the animal cat", f"the animal {evil}", "the food pie", "animal", True),
        CaptionedPicture("u2", image(), evil, "a face", "", "food", False),
        CaptionedPicture("u3", None, "a cat", "", None, None, None),
    ]
    page = captions_page(f"Captions {evil}", [("loss", "1.25")], cards)
    assert "<script" not in page
    assert page.count("data:image/jpeg;base64,") == 2
    assert page.count('class="right"') == page.count('class="wrong"') == 1
    assert "not readable" in page
    assert "1.25" in page
    assert not re.findall(r"(?:src|href)=[\"'](?!data:)", page), "nothing is loaded from elsewhere"
    assert "http" not in re.sub("http-equiv", "", page)
    assert "prefers-color-scheme: dark" in page


def test_a_page_holds_the_first_captions_only() -> None:
    cards = [CaptionedPicture(f"uid{at}", None, "a", "b", None, None, None) for at in range(MAX_CAPTIONS + 5)]
    page = captions_page("t", [], cards)
    assert page.count("<figure>") == MAX_CAPTIONS
    assert "uid0<" in page
