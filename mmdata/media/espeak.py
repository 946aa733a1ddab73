"""eSpeak NG as a speaker of captions: the packaged library in a child process, since it keeps state and may crash.

The package espeakng-loader carries eSpeak NG, which is under the GPL; nothing of it is imported here or shipped.
"""

from __future__ import annotations

import ctypes
import json
import os
import struct
import subprocess
import sys
import threading
from contextlib import suppress
from types import TracebackType
from typing import IO, Any

import numpy as np

from mmdata.errors import DataError, UserError

SAMPLE_RATE = 16_000
MAX_CHARS = 2_000  # of one text: two minutes of speech
ANSWER_S = 60.0
VARIANTS = ("m1", "m3", "m7", "f1", "f2", "f4")
"""eSpeak's own voice variants that are easily understood."""

_SYNCHRONOUS, _UTF8, _RATE, _PITCH = 2, 1, 1, 3


class Speaker:
    """Speaks texts; a context manager. One text at a time, from any thread.

    Raises:
        UserError: espeakng-loader is not installed.
    """

    def __init__(self) -> None:
        _paths()
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Speaker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def say(self, text: str, lang: str | None = "en", voice: int = 0) -> np.ndarray:
        """A text as float32 in [-1, 1], 16 kHz mono; the same arguments give the same samples.

        Args:
            lang: ISO 639-1; one that eSpeak does not know is spoken as English.
            voice: any number; the voice's variant, pitch and pace follow from it.

        Raises:
            DataError: there is nothing to say in the text, or the library failed on it.
        """
        if not any(character.isalnum() for character in text):
            raise DataError(f"there is nothing to say in {text[:80]!r}")
        request = {"text": text[:MAX_CHARS].replace("\0", " "), "lang": lang or "en", "voice": voice}
        with self._lock:
            child = self._running()
            assert child.stdin is not None
            assert child.stdout is not None
            killer = threading.Timer(ANSWER_S, child.kill)
            killer.start()
            try:
                child.stdin.write(json.dumps(request).encode() + b"\n")
                child.stdin.flush()
                wave, rate = _answer(child.stdout)
            except (OSError, EOFError):
                self._drop()
                raise DataError(f"the synthesiser failed on {text[:80]!r}") from None
            finally:
                killer.cancel()
        if not len(wave):
            raise DataError(f"the synthesiser has no sound for {text[:80]!r}")
        return resampled(wave, rate)

    def close(self) -> None:
        """End the child."""
        with self._lock:
            self._drop()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is None or self._child.poll() is not None:
            command = [sys.executable, "-m", "mmdata.media.espeak"]
            self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return self._child

    def _drop(self) -> None:
        if self._child is not None:
            with suppress(OSError):
                self._child.kill()
            self._child.communicate()
            self._child = None


def resampled(wave: np.ndarray, rate: int) -> np.ndarray:
    """Mono int16 of any rate as float32 at 16 kHz."""
    import av

    resampler = av.AudioResampler("flt", "mono", SAMPLE_RATE)
    frame = av.AudioFrame.from_ndarray(wave[None], format="s16", layout="mono")
    frame.sample_rate, frame.pts = rate, 0
    frames = [*resampler.resample(frame), *resampler.resample(None)]
    return np.concatenate([one.to_ndarray()[0] for one in frames]).astype(np.float32)


def _answer(stream: IO[bytes]) -> tuple[np.ndarray, int]:
    rate, size = struct.unpack("<II", _exactly(stream, 8))
    return np.frombuffer(_exactly(stream, size), np.int16), rate


def _exactly(stream: IO[bytes], count: int) -> bytes:
    data = stream.read(count)
    if len(data) != count:
        raise EOFError
    return data


def _paths() -> tuple[str, str]:
    """The library and its data."""
    try:
        import espeakng_loader
    except ImportError:
        raise UserError(
            "speech is made by espeakng-loader, which is not installed. Remedy: pip install 'mmdata[demo]', or "
            "synthesis.synthesiser: a `module:function` of your own."
        ) from None
    return espeakng_loader.get_library_path(), espeakng_loader.get_data_path()


class _Library:
    """The library, in the child. Its callback gathers samples until a text is spoken."""

    def __init__(self) -> None:
        library, data = _paths()
        self.calls: Any = ctypes.CDLL(library)
        self.rate = self.calls.espeak_Initialize(_SYNCHRONOUS, 0, data.encode(), 0)
        if self.rate <= 0:
            raise RuntimeError("espeak_Initialize failed")
        self.pieces: list[bytes] = []
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
        self.callback = kind(self._take)  # kept: the library holds but a pointer to it
        self.calls.espeak_SetSynthCallback(self.callback)

    def _take(self, samples: Any, count: int, _events: Any) -> int:
        if samples and count > 0:
            self.pieces.append(ctypes.string_at(samples, count * 2))
        return 0

    def say(self, text: str, lang: str, voice: int) -> bytes:
        variant = VARIANTS[voice % len(VARIANTS)]
        if not all(part.isalnum() for part in lang.split("-")) or self._voice(f"{lang}+{variant}"):
            self._voice(f"en+{variant}")
        self.calls.espeak_SetParameter(_RATE, 135 + voice // 7 % 5 * 10, 0)  # words a minute
        self.calls.espeak_SetParameter(_PITCH, 40 + voice // 35 % 5 * 5, 0)
        self.pieces.clear()
        data = text.encode()
        self.calls.espeak_Synth(data, len(data) + 1, 0, 1, 0, _UTF8, None, None)
        self.calls.espeak_Synchronize()
        return b"".join(self.pieces)

    def _voice(self, name: str) -> int:
        return int(self.calls.espeak_SetVoiceByName(name.encode()))


def _serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer one line after the other, each in a copy of this process: what was said before leaves its traces."""
    library = _Library()
    while line := requests.readline():
        copy = os.fork()
        if copy == 0:
            request = json.loads(line)
            samples = library.say(request["text"], request["lang"], request["voice"])
            answers.write(struct.pack("<II", library.rate, len(samples)) + samples)
            answers.flush()
            os._exit(0)
        _, status = os.waitpid(copy, 0)
        if status != 0:
            sys.exit(1)  # whoever waits for the answer sees the end of the stream


if __name__ == "__main__":
    _serve(sys.stdin.buffer, sys.stdout.buffer)
