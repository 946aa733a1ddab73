"""HDR and wide-gamut pictures on an ordinary screen."""

from __future__ import annotations

import numpy as np
import pytest

from mmdata.media.tone_mapping import to_bt709
from tests.support.coloured_films import BARS, BT709_TO_BT2020, BT709_TO_P3, gamma, hlg, pq

BT2020, P3, PQ, HLG = 9, 12, 16, 18


def _shown(rgb: np.ndarray, transfer: int, primaries: int, **options: float) -> np.ndarray:
    codes = np.round(np.asarray(rgb) * 65535).astype(np.uint16)
    return to_bt709(np.repeat(codes[None], 2, 0), transfer, primaries, **options)[0].astype(int)


def _light() -> np.ndarray:
    return (np.array(BARS) / 255) ** 2.4


@pytest.mark.parametrize(("code", "transfer"), [(pq, PQ), (hlg, HLG)])
def test_hdr_keeps_its_colours_and_bends_its_whites(code, transfer):
    shown = _shown(code(_light() @ BT709_TO_BT2020.T), transfer, BT2020)
    assert np.abs(shown - BARS).max() <= 20  # the light bar of 70 nits is darker, to leave room for up to 1,000 nits
    assert np.abs(shown - BARS)[:3].max() <= 9


def test_a_picture_that_is_never_brighter_than_a_screen_is_not_bent():
    shown = _shown(pq(_light() @ BT709_TO_BT2020.T), PQ, BT2020, peak_nits=100)
    assert np.abs(shown - BARS).max() <= 3


def test_brightness_rises_up_to_the_peak_and_no_light_is_turned_round():
    greys = np.repeat(pq(np.geomspace(0.001, 100, 300))[:, None], 3, 1)
    shown = _shown(greys, PQ, BT2020)[:, 0]
    assert (np.diff(shown) >= 0).all()
    assert shown[np.geomspace(0.001, 100, 300) >= 10].min() == 255  # 1,000 nits and more
    # what BT.2408 calls white (203 nits), and 18 nits, which are below the knee
    assert list(_shown(np.repeat(pq(np.array([2.03, 0.18]))[:, None], 3, 1), PQ, BT2020)[:, 0]) == [242, 125]


@pytest.mark.parametrize(("primaries", "to_primaries"), [(BT2020, BT709_TO_BT2020), (P3, BT709_TO_P3)])
def test_wide_gamuts_are_converted(primaries, to_primaries):
    shown = _shown(gamma(_light() @ to_primaries.T), 1, primaries)
    assert np.abs(shown - BARS).max() <= 3


def test_colours_that_no_ordinary_screen_has_are_clipped():
    shown = _shown(np.eye(3), 1, BT2020)
    assert shown.tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 255]]


@pytest.mark.parametrize(
    ("transfer", "code"),
    [
        (8, lambda light: light),
        (9, lambda light: 1 + np.log10(light) / 2),
        (10, lambda light: 1 + np.log10(light) / 2.5),
        (17, lambda light: (light * 48 / 52.37) ** (1 / 2.6)),
    ],
)
def test_other_transfers_are_converted(transfer, code):
    greys = np.repeat(np.arange(40, 256, 20)[:, None], 3, 1)  # one of the logarithms begins at a hundredth of white
    assert np.abs(_shown(code((greys / 255) ** 2.4), transfer, 1) - greys).max() <= 3
