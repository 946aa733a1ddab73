"""Frames as viewers show them."""

from __future__ import annotations

from fractions import Fraction

from mmdata.media.clip import Cut
from tests.support.cutting import cut
from tests.support.made_videos import (
    number_in_jpeg,
)


def test_turned_and_stretched_pictures_are_stored_as_they_are_seen(made):
    for degrees, size in ((90, (120, 160)), (180, (160, 120)), (-90, (120, 160))):
        path = made(f"turned_{degrees}.mp4", rotation=degrees, seconds=3.0)
        results, facts = cut(path, [(0.5, 2.5)])
        clip = results[0]
        assert isinstance(clip, Cut)
        assert (clip.width, clip.height) == size
        assert (facts.width, facts.height) == (size[0] * 2, size[1] * 2)
        numbers = [number_in_jpeg(data) for name, data in clip.members.items() if name.endswith("jpg")]
        assert numbers == [15, 21, 28, 34, 40, 46, 53, 59]
    results, facts = cut(made("stretched.mp4", aspect=Fraction(4, 3), seconds=3.0), [(0.5, 2.5)])
    assert isinstance(results[0], Cut)
    assert (facts.width, facts.height) == (427, 240)
    assert (results[0].width, results[0].height) in ((213, 120), (214, 120))


def test_small_pictures_are_never_enlarged(made):
    results, _ = cut(made("small.mp4", size=(96, 64), seconds=3.0), [(0.5, 2.5)])
    assert isinstance(results[0], Cut)
    assert (results[0].width, results[0].height) == (96, 64)
