"""Converts HDR and wide-gamut pictures to the BT.709 of ordinary screens: BT.2100, and the tone curve of BT.2390."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

# numbers of ITU-T H.273
LINEAR, LOG_100, LOG_316, PQ, SMPTE_428, HLG = 8, 9, 10, 16, 17, 18
BT709, BT2020 = 1, 9

SDR_WHITE_NITS = 100.0
MAX_NITS = 10_000.0
PEAK_NITS = 1000.0
"""The light that becomes white, of PQ pictures that do not say that they are darker, and the screen of HLG."""

WIDE_PRIMARIES = {
    8: (0.681, 0.319, 0.243, 0.692, 0.145, 0.049, 0.310, 0.316),  # film
    BT2020: (0.708, 0.292, 0.170, 0.797, 0.131, 0.046, 0.3127, 0.3290),
    10: (1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1 / 3, 1 / 3),  # XYZ
    11: (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, 0.314, 0.351),  # cinema P3
    12: (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, 0.3127, 0.3290),  # Display P3
}
"""x and y of red, green, blue and white. Those of standard television count as BT.709, as for FFmpeg.

They differ little from it, except those of 1953, which files name by mistake: no film is coded by them.
"""

_BT709_XY = (0.640, 0.330, 0.300, 0.600, 0.150, 0.060, 0.3127, 0.3290)
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_GAMMA = 2.4  # BT.1886
_FACTORS_PER_LIGHT = 65535 / (MAX_NITS / SDR_WHITE_NITS)
_PQ_M1, _PQ_M2, _PQ_C1, _PQ_C2, _PQ_C3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875


def needs_conversion(transfer: int, primaries: int) -> bool:
    """Whether a picture with these numbers of H.273 looks wrong if it is taken for BT.709."""
    return transfer in (LINEAR, LOG_100, LOG_316, PQ, SMPTE_428, HLG) or primaries in WIDE_PRIMARIES


def to_bt709(codes: np.ndarray, transfer: int, primaries: int, peak_nits: float = PEAK_NITS) -> np.ndarray:
    """A picture as an ordinary screen shows it.

    Light up to about a third of an SDR white of 100 nits stays as it is, and brighter light is compressed, so that
    `peak_nits`, or 1,000 nits if that is less, becomes white. Colours outside of BT.709 are clipped.

    Args:
        codes: uint16 H,W,3, full-range RGB as it is coded.
        transfer, primaries: numbers of H.273; primaries that are not in `WIDE_PRIMARIES` count as BT.709.
        peak_nits: the brightest light of a PQ picture.

    Returns:
        uint8 H,W,3 RGB.
    """
    import cv2

    light = _light_of_codes(transfer)[codes]
    if transfer == HLG:
        light = _shown_hlg(light)
        peak_nits = PEAK_NITS
    if transfer in (PQ, HLG):
        brightest = np.maximum(np.maximum(light[..., 0], light[..., 1]), light[..., 2])
        factors = _tone_factors(float(np.clip(peak_nits, SDR_WHITE_NITS, PEAK_NITS)))
        light *= factors[(brightest * _FACTORS_PER_LIGHT).astype(np.int32)][..., None]
    if primaries in WIDE_PRIMARIES:
        light = cv2.transform(light, _to_bt709_primaries(primaries))
    return cv2.convertScaleAbs(cv2.pow(np.maximum(light, 0), 1 / _GAMMA), alpha=255)


@lru_cache(maxsize=8)
def _light_of_codes(transfer: int) -> np.ndarray:
    """float32 65536: linear light of each 16-bit code, 1 is SDR white; for HLG, the light of the scene, 1 at most."""
    signal = np.arange(65536) / 65535
    if transfer == PQ:
        light = _pq_nits(signal) / SDR_WHITE_NITS
    elif transfer == HLG:
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        light = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    elif transfer == LINEAR:
        light = signal
    elif transfer == SMPTE_428:
        light = signal**2.6 * 52.37 / 48
    elif transfer in (LOG_100, LOG_316):
        light = np.where(signal > 0, 10 ** ((signal - 1) * (2 if transfer == LOG_100 else 2.5)), 0)
    else:
        light = signal**_GAMMA
    return light.astype(np.float32)


def _shown_hlg(scene: np.ndarray) -> np.ndarray:
    """What a screen of 1,000 nits shows of an HLG scene (BT.2100, note 5f: a system gamma of 1.2)."""
    luminance = scene @ np.array([0.2627, 0.6780, 0.0593], np.float32)
    return scene * (luminance**0.2 * (PEAK_NITS / SDR_WHITE_NITS))[..., None]


@lru_cache(maxsize=16)
def _tone_factors(peak_nits: float) -> np.ndarray:
    """float32 65536: what light of `index / _FACTORS_PER_LIGHT` SDR whites is multiplied by, the EETF of BT.2390."""
    peak = _pq_signal(np.array(peak_nits))
    target = _pq_signal(np.array(SDR_WHITE_NITS)) / peak
    light = np.maximum(np.arange(65536), 1) / _FACTORS_PER_LIGHT
    signal = np.minimum(_pq_signal(light * SDR_WHITE_NITS) / peak, 1)
    knee = 1.5 * target - 0.5
    t = (signal - knee) / max(1 - knee, 1e-9)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * target
    mapped = np.where(signal < knee, signal, spline)
    return (_pq_nits(mapped * peak) / SDR_WHITE_NITS / light).astype(np.float32)


def _pq_nits(signal: np.ndarray) -> np.ndarray:
    power = signal ** (1 / _PQ_M2)
    return MAX_NITS * (np.maximum(power - _PQ_C1, 0) / (_PQ_C2 - _PQ_C3 * power)) ** (1 / _PQ_M1)


def _pq_signal(nits: np.ndarray) -> np.ndarray:
    power = (nits / MAX_NITS) ** _PQ_M1
    return ((_PQ_C1 + _PQ_C2 * power) / (1 + _PQ_C3 * power)) ** _PQ_M2


@lru_cache(maxsize=8)
def _to_bt709_primaries(primaries: int) -> np.ndarray:
    """float32 3,3: linear RGB of some primaries to that of BT.709, with the white adapted as by Bradford."""
    source, white = _rgb_to_xyz(WIDE_PRIMARIES[primaries])
    target, target_white = _rgb_to_xyz(_BT709_XY)
    scale = np.diag((_BRADFORD @ target_white) / (_BRADFORD @ white))
    adapted = np.linalg.inv(_BRADFORD) @ scale @ _BRADFORD @ source
    return (np.linalg.inv(target) @ adapted).astype(np.float32)


def _rgb_to_xyz(xy: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    columns = np.array([(x, y, 1 - x - y) for x, y in zip(xy[::2], xy[1::2], strict=True)]).T
    white = columns[:, 3] / columns[1, 3]
    return columns[:, :3] * np.linalg.solve(columns[:, :3], white), white
