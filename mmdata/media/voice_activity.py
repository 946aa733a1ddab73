"""Where in a sound somebody speaks: Silero VAD (packaged), in windows of 32 ms."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from mmdata.errors import UserError
from mmdata.media.packaged_file import PackagedFile

SAMPLE_RATE = 16_000
WINDOW, CONTEXT = 512, 64  # samples: of a window, and of what was before it
WINDOWS_AT_ONCE = 512
MODEL = PackagedFile(
    "silero-vad",
    "silero_vad",
    "data/silero_vad_16k_sequence.onnx",
    "9ccdacc4719d8aa7e45a77536bfabec45a03ba1f2fad5e241ab4060b24238a85",
    "video",
)
SPEECH, SILENCE = 0.5, 0.35  # speech begins at the one probability and ends under the other
LEAST_SPEECH_S, LEAST_SILENCE_S, PAD_S = 0.25, 0.1, 0.03


def speech_probabilities(samples: np.ndarray) -> np.ndarray:
    """The probability of speech in each window.

    Args:
        samples: float32 N in [-1, 1], 16 kHz mono.

    Returns:
        float32, one for each 512 samples begun.

    Raises:
        UserError: the packages of mmdata[video] are not installed.
    """
    count = -(-len(samples) // WINDOW)
    if not count:
        return np.empty(0, np.float32)
    padded = np.zeros(CONTEXT + count * WINDOW, np.float32)
    padded[CONTEXT : CONTEXT + len(samples)] = samples
    windows = np.lib.stride_tricks.sliding_window_view(padded, CONTEXT + WINDOW)[::WINDOW]
    state = np.zeros((1, 1, 128), np.float32), np.zeros((1, 1, 128), np.float32)
    found = []
    for start in range(0, count, WINDOWS_AT_ONCE):
        block = np.ascontiguousarray(windows[start : start + WINDOWS_AT_ONCE])
        probabilities, *state_after = _session().run(None, {"input": block, "h": state[0], "c": state[1]})
        state = state_after[0], state_after[1]
        found.append(probabilities.ravel())
    return np.concatenate(found)


def speech_spans(samples: np.ndarray) -> list[tuple[float, float]]:
    """Where somebody speaks: (start, end) in seconds, in order, with silero's own rules of hysteresis.

    Speech begins where the probability reaches 0.5 and ends where it stays under 0.35 for 0.1 s; shorter than 0.25 s it
    is none; each span is 0.03 s wider than that on both sides.

    Args, Raises: see `speech_probabilities`.
    """
    spans: list[tuple[int, int]] = []
    begin: int | None = None
    quiet: int | None = None
    probabilities = speech_probabilities(samples)
    for at, probability in enumerate(probabilities.tolist()):
        if probability >= SPEECH:
            quiet = None
            begin = at if begin is None else begin
        elif begin is not None and probability < SILENCE:
            quiet = at if quiet is None else quiet
            if (at - quiet) * WINDOW >= LEAST_SILENCE_S * SAMPLE_RATE:
                spans.append((begin, quiet))
                begin = quiet = None
    if begin is not None:
        spans.append((begin, len(probabilities)))
    length, pad = len(samples) / SAMPLE_RATE, PAD_S
    seconds = [(low * WINDOW / SAMPLE_RATE, min(high * WINDOW / SAMPLE_RATE, length)) for low, high in spans]
    wide = [(max(0.0, low - pad), min(length, high + pad)) for low, high in seconds if high - low >= LEAST_SPEECH_S]
    return _parted(wide)


def speech_ratio(samples: np.ndarray) -> float:
    """The share of a sound in which somebody speaks, 0 to 1. Takes what `speech_probabilities` takes."""
    return sum(end - start for start, end in speech_spans(samples)) / max(len(samples) / SAMPLE_RATE, 1e-9)


def _parted(spans: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Neighbours that their widening made overlap share what is between them."""
    for at in range(1, len(spans)):
        if spans[at][0] < spans[at - 1][1]:
            middle = (spans[at][0] + spans[at - 1][1]) / 2
            spans[at - 1], spans[at] = (spans[at - 1][0], middle), (middle, spans[at][1])
    return spans


@cache
def _session() -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise UserError("speech is found by onnxruntime. Remedy: pip install 'mmdata[video]'") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # others measure beside it
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(MODEL.path()), options, providers=["CPUExecutionProvider"])
