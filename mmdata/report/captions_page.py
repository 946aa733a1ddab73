"""Captions that a model made for held-out pictures, beside the pictures, on one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mmdata.report.page import environment
from mmdata.report.stored import small_picture

MAX_CAPTIONS = 24  # on a page


@dataclass(frozen=True, slots=True)
class CaptionedPicture:
    """A held-out picture and what was said about it."""

    uid: str
    picture: bytes | None  # encoded; None: not readable
    expected: str  # the sample's own caption
    generated: str
    with_other_picture: str | None  # the caption made from another sample's picture
    concept: str | None  # of the sample
    names_concept: bool | None  # whether the generated caption names it; None: the concept has no name in captions


def captions_page(title: str, facts: Sequence[tuple[str, str]], pictures: Sequence[CaptionedPicture]) -> str:
    """The pictures with their captions as HTML: no script, nothing loaded from elsewhere, all text escaped.

    Args: facts: names and values that are shown above the pictures.
    """
    cards = [(card, small_picture(card.picture)) for card in pictures[:MAX_CAPTIONS]]
    return environment().get_template("captions.html.j2").render(title=title, facts=facts, cards=cards)
