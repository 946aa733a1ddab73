"""Documents for tests: rows of texts and pictures in order, whose pictures the hostile server draws by number."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from mmdata.documents import document_text, document_uid
from tests.support.hostile_server import picture


def document(texts: Sequence[str], urls: Sequence[str], page: str | None = None) -> dict[str, Any]:
    """A row of the rows table: `texts` are those before, between and after the pictures."""
    text = document_text(texts)
    row = {"uid": document_uid(urls, text), "kind": "document", "url": page, "caption": text}
    return {**row, "extra": json.dumps({"picture_urls": list(urls)})}


def numbers_shown(members: Mapping[str, bytes], among: Sequence[int]) -> list[int]:
    """Which of the numbered pictures stand in the members of a sample, in the order of the members' names."""
    shown = []
    for ext in sorted(ext for ext in members if ext.endswith(".jpg")):
        image = cv2.imdecode(np.frombuffer(members[ext], np.uint8), cv2.IMREAD_COLOR)
        mean = image.mean((0, 1))
        shown.append(min(among, key=lambda number: float(np.abs(picture(number)[0, 0] - mean).sum())))
    return shown
