"""Speaks captions with eSpeak NG. The library runs in a child process, because it keeps state and may crash.

The package espeakng-loader contains eSpeak NG, which is under the GPL; mmdata neither links nor ships it.
"""

from __future__ import annotations

import ctypes
import json
import os
import struct
import sys
import threading
from contextlib import AbstractContextManager
from typing import IO, Any

import numpy as np

from mmdata.errors import DataError, UserError
from mmdata.media.child_process import ChildProcess
from mmdata.media.flac import SAMPLE_RATE

MAX_CHARACTERS = 2_000  # of a text; about two minutes of speech
MAX_ANSWER_S = 60.0
VARIANTS = ("m1", "m3", "m7", "f1", "f2", "f4")
"""Those of eSpeak's voice variants that are easy to understand."""

_SYNCHRONOUS, _UTF8, _RATE, _PITCH = 2, 1, 1, 3  # constants of speak_lib.h


class Speaker(AbstractContextManager["Speaker"]):
    """Speaks texts. Any thread may use it; one text is spoken at a time. A context manager.

    Raises:
        UserError: espeakng-loader is not installed.
    """

    def __init__(self) -> None:
        _library_and_data_paths()  # raises here rather than at the first text
        self._lock = threading.Lock()
        self.process = ChildProcess("mmdata.media.espeak")

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self.process.close()

    def say(self, text: str, lang: str | None = "en", voice: int = 0) -> np.ndarray:
        """Speak a text: float32 N in [-1, 1], 16 kHz mono.

        The same arguments give the same samples; those of variant f2, a breathy voice, differ between speakers, though.

        Args:
            lang: ISO 639-1; a language that eSpeak does not know is spoken as English.
            voice: any number; it determines variant, pitch and speed of the voice.

        Raises:
            DataError: the text has no letter or digit, or the library failed on it.
        """
        if not any(character.isalnum() for character in text):
            raise DataError(f"there is nothing to say in {text[:80]!r}")
        request = {"text": text[:MAX_CHARACTERS].replace("\0", " "), "lang": lang or "en", "voice": voice}
        with self._lock:
            try:
                with self.process.answers(request, MAX_ANSWER_S) as stream:
                    wave, rate = _read_answer(stream)
            except (OSError, EOFError):
                self.process.close()
                raise DataError(f"the synthesiser failed on {text[:80]!r}") from None
        if not len(wave):
            raise DataError(f"the synthesiser made no sound for {text[:80]!r}")
        return resampled(wave, rate)


def resampled(wave: np.ndarray, rate: int) -> np.ndarray:
    """Mono int16 N of any rate as float32 N at 16 kHz."""
    import av

    resampler = av.AudioResampler("flt", "mono", SAMPLE_RATE)
    frame = av.AudioFrame.from_ndarray(wave[None], format="s16", layout="mono")
    frame.sample_rate, frame.pts = rate, 0
    frames = [*resampler.resample(frame), *resampler.resample(None)]
    return np.concatenate([piece.to_ndarray()[0] for piece in frames]).astype(np.float32)


def _read_answer(stream: IO[bytes]) -> tuple[np.ndarray, int]:
    rate, size = struct.unpack("<II", _read_exactly(stream, 8))
    return np.frombuffer(_read_exactly(stream, size), np.int16), rate


def _read_exactly(stream: IO[bytes], count: int) -> bytes:
    data = stream.read(count)
    if len(data) != count:
        raise EOFError
    return data


def _library_and_data_paths() -> tuple[str, str]:
    try:
        import espeakng_loader
    except ImportError:
        raise UserError(
            "speech is made by espeakng-loader, which is not installed. Remedy: pip install 'mmdata[demo]', or "
            "set synthesis.synthesiser to a `module:function` of your own."
        ) from None
    return espeakng_loader.get_library_path(), espeakng_loader.get_data_path()


class _Library:
    """The library in the child process. Its callback collects the samples of a text."""

    def __init__(self) -> None:
        library, data = _library_and_data_paths()
        self.calls: Any = ctypes.CDLL(library)
        self.rate = self.calls.espeak_Initialize(_SYNCHRONOUS, 0, data.encode(), 0)
        if self.rate <= 0:
            raise RuntimeError("espeak_Initialize failed")
        self.chunks: list[bytes] = []
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
        self.callback = kind(self._take)  # keeps the callback alive; the library has a pointer to it only
        self.calls.espeak_SetSynthCallback(self.callback)

    def _take(self, samples: Any, count: int, _events: Any) -> int:
        if samples and count > 0:
            self.chunks.append(ctypes.string_at(samples, count * 2))
        return 0

    def say(self, text: str, lang: str, voice: int) -> bytes:
        variant = VARIANTS[voice % len(VARIANTS)]
        if not all(part.isalnum() for part in lang.split("-")) or self._voice(f"{lang}+{variant}"):
            self._voice(f"en+{variant}")
        self.calls.espeak_SetParameter(_RATE, 135 + voice // 7 % 5 * 10, 0)  # words a minute
        self.calls.espeak_SetParameter(_PITCH, 40 + voice // 35 % 5 * 5, 0)
        self.chunks.clear()
        data = text.encode()
        self.calls.espeak_Synth(data, len(data) + 1, 0, 1, 0, _UTF8, None, None)
        self.calls.espeak_Synchronize()
        return b"".join(self.chunks)

    def _voice(self, name: str) -> int:
        return int(self.calls.espeak_SetVoiceByName(name.encode()))


def _serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer request after request, each in a fork, because earlier texts change how the library speaks later ones."""
    library = _Library()
    while line := requests.readline():
        child_pid = os.fork()
        if child_pid == 0:
            request = json.loads(line)
            samples = library.say(request["text"], request["lang"], request["voice"])
            answers.write(struct.pack("<II", library.rate, len(samples)) + samples)
            answers.flush()
            os._exit(0)
        _, status = os.waitpid(child_pid, 0)
        if status != 0:
            sys.exit(1)  # the reader then finds the end of the stream instead of an answer


if __name__ == "__main__":
    _serve(sys.stdin.buffer, sys.stdout.buffer)
