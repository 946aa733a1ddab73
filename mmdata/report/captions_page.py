"""Captions that a model made for held-out pictures, beside the pictures, on one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Sequence

from mmdata.report.model_captions import CaptionedPicture
from mmdata.report.page import environment

MAX_CAPTIONS = 24  # on a page


def captions_page(title: str, facts: Sequence[tuple[str, str]], pictures: Sequence[CaptionedPicture]) -> str:
    """The pictures with their captions as HTML: no script, nothing loaded from elsewhere, all text escaped.

    Args: facts: names and values that are shown above the pictures.
    """
    template = environment().get_template("captions.html.j2")
    return template.render(title=title, facts=facts, pictures=pictures[:MAX_CAPTIONS])
