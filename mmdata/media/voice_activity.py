"""Finds speech in sound with Silero VAD, whose weights the package silero-vad ships, in windows of 32 ms."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from mmdata.errors import UserError
from mmdata.media.flac import SAMPLE_RATE
from mmdata.media.packaged_file import PackagedFile

WINDOW_SAMPLES = 512
CONTEXT_SAMPLES = 64  # the network takes the end of the window before with each window
WINDOWS_A_RUN = 512
MODEL = PackagedFile(
    "silero-vad",
    "silero_vad",
    "data/silero_vad_16k_sequence.onnx",
    "9ccdacc4719d8aa7e45a77536bfabec45a03ba1f2fad5e241ab4060b24238a85",
    "video",
)
SPEECH_BEGINS_AT, SPEECH_ENDS_UNDER = 0.5, 0.35  # probabilities of speech in a window
MIN_SPEECH_S, MIN_SILENCE_S, PADDING_S = 0.25, 0.1, 0.03


def speech_probabilities(samples: np.ndarray) -> np.ndarray:
    """The probability of speech in each window.

    Args:
        samples: float32 N in [-1, 1], 16 kHz mono.

    Returns:
        float32, one for each window of 512 samples; the last window may be incomplete.

    Raises:
        UserError: the packages of mmdata[video] are not installed.
    """
    count = -(-len(samples) // WINDOW_SAMPLES)
    if not count:
        return np.empty(0, np.float32)
    padded = np.zeros(CONTEXT_SAMPLES + count * WINDOW_SAMPLES, np.float32)
    padded[CONTEXT_SAMPLES : CONTEXT_SAMPLES + len(samples)] = samples
    windows = np.lib.stride_tricks.sliding_window_view(padded, CONTEXT_SAMPLES + WINDOW_SAMPLES)[::WINDOW_SAMPLES]
    state = np.zeros((1, 1, 128), np.float32), np.zeros((1, 1, 128), np.float32)
    blocks = []
    for start in range(0, count, WINDOWS_A_RUN):
        inputs = np.ascontiguousarray(windows[start : start + WINDOWS_A_RUN])
        probabilities, *state_after = _session().run(None, {"input": inputs, "h": state[0], "c": state[1]})
        state = state_after[0], state_after[1]
        blocks.append(probabilities.ravel())
    return np.concatenate(blocks)


def speech_spans(samples: np.ndarray) -> list[tuple[float, float]]:
    """The spans in which somebody speaks: (start, end) in seconds, in order, by the rules of Silero's own code.

    Speech begins where the probability reaches 0.5, and ends where it stays under 0.35 for 0.1 s. Spans shorter than
    0.25 s are dropped. The others are widened by 0.03 s on both sides.

    Args, Raises: see `speech_probabilities`.
    """
    spans: list[tuple[int, int]] = []
    begin: int | None = None
    quiet: int | None = None
    probabilities = speech_probabilities(samples)
    for window, probability in enumerate(probabilities.tolist()):
        if probability >= SPEECH_BEGINS_AT:
            quiet = None
            begin = window if begin is None else begin
        elif begin is not None and probability < SPEECH_ENDS_UNDER:
            quiet = window if quiet is None else quiet
            if (window - quiet) * WINDOW_SAMPLES >= MIN_SILENCE_S * SAMPLE_RATE:
                spans.append((begin, quiet))
                begin = quiet = None
    if begin is not None:
        spans.append((begin, len(probabilities)))
    length_s = len(samples) / SAMPLE_RATE
    seconds = [
        (low * WINDOW_SAMPLES / SAMPLE_RATE, min(high * WINDOW_SAMPLES / SAMPLE_RATE, length_s)) for low, high in spans
    ]
    widened = [
        (max(0.0, low - PADDING_S), min(length_s, high + PADDING_S))
        for low, high in seconds
        if high - low >= MIN_SPEECH_S
    ]
    return _without_overlaps(widened)


def speech_ratio(samples: np.ndarray) -> float:
    """The share of a sound in which somebody speaks, 0 to 1; `samples` as for `speech_probabilities`."""
    return sum(end - start for start, end in speech_spans(samples)) / max(len(samples) / SAMPLE_RATE, 1e-9)


def _without_overlaps(spans: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Spans in which neighbours that overlap meet in the middle of their overlap."""
    for number in range(1, len(spans)):
        (start, end), (next_start, next_end) = spans[number - 1 : number + 1]
        if next_start < end:
            middle = (next_start + end) / 2
            spans[number - 1], spans[number] = (start, middle), (middle, next_end)
    return spans


@cache
def _session() -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise UserError(
            "speech is found with onnxruntime, which is not installed. Remedy: pip install 'mmdata[video]'"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # each core has a process of its own
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(MODEL.path()), options, providers=["CPUExecutionProvider"])
