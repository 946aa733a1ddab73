"""Boxes of faces in the columns of a source."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mmdata.media.listed_faces import listed_faces


@pytest.mark.parametrize(
    ("boxes", "faces"),
    [
        ([[0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1]], [(0.1, 0.2, 0.3, 0.4), (0, 0, 1, 1)]),
        ("[[0.1, 0.2, 0.3, 0.4]]", [(0.1, 0.2, 0.3, 0.4)]),
        ([[-0.1, 0.2, 1.2, 0.4]], [(0, 0.2, 1, 0.4)]),
        ([[10, 20, 30, 40]], []),  # pixels
        ([[0.3, 0.2, 0.1, 0.4], [0.1, 0.2, 0.3], "x", None, [True, 0, 1, 1], [None] * 4], []),
        (None, []),
        ("no JSON", []),
        (7, []),
    ],
)
def test_boxes_of_fractions_are_faces_and_others_are_not(boxes: Any, faces: list[Any]) -> None:
    assert list(listed_faces(json.dumps({"face_bboxes": boxes}))) == faces


@pytest.mark.parametrize("extra", [None, "", "{}", '{"face_bboxes": [[NaN, 0, 1, 1]]}', "face_bboxes"])
def test_a_row_without_boxes_has_none(extra: str | None) -> None:
    assert list(listed_faces(extra)) == []
