"""Speech by eSpeak NG: repeatable, of several voices, and none without words."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import numpy as np
import pytest

from mmdata.errors import DataError
from mmdata.media import espeak
from mmdata.media.espeak import Speaker
from mmdata.media.flac import SAMPLE_RATE


@pytest.fixture(scope="module")
def voice() -> Iterator[Speaker]:
    pytest.importorskip("espeakng_loader")
    with Speaker() as speaker:
        yield speaker


def test_earlier_texts_do_not_change_the_samples(voice: Speaker) -> None:
    first = voice.say("wash the green apple with cold water")
    voice.say("etwas ganz anderes", lang="de", voice=3)
    again = voice.say("wash the green apple with cold water")
    with Speaker() as other:
        elsewhere = other.say("wash the green apple with cold water")
    assert first.dtype == np.float32
    assert 1.5 < len(first) / SAMPLE_RATE < 5
    assert np.abs(first).max() > 0.1
    assert np.array_equal(first, again)
    assert np.array_equal(first, elsewhere)


def test_voices_and_languages_differ(voice: Speaker) -> None:
    waves = [voice.say("twenty one", lang=lang, voice=number) for lang in ("en", "fr") for number in (0, 1, 40)]
    assert len({wave.tobytes() for wave in waves}) == len(waves)
    unknown = voice.say("twenty one", lang="tlh")
    assert np.array_equal(unknown, waves[0])
    assert np.array_equal(voice.say("twenty one", lang="../../etc"), waves[0])


def test_a_text_of_no_words_is_refused(voice: Speaker) -> None:
    for text in ("", "  \t", "\u202e…!", "\U0001f600"):
        with pytest.raises(DataError, match="nothing to say"):
            voice.say(text)
    assert len(voice.say("a\0b \x01 and so on")) > 0


def test_a_child_that_dies_is_replaced(voice: Speaker) -> None:
    voice.say("one")
    assert voice.process.pid is not None
    os.kill(voice.process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, voice.process.pid, os.WEXITED | os.WNOWAIT)
    assert len(voice.say("two")) > 0


def test_a_text_that_hangs_is_given_up(voice: Speaker, monkeypatch: pytest.MonkeyPatch) -> None:
    voice.say("one")
    assert voice.process.pid is not None
    os.kill(voice.process.pid, signal.SIGSTOP)
    monkeypatch.setattr(espeak, "MAX_ANSWER_S", 0.1)
    with pytest.raises(DataError, match="failed on"):
        voice.say("a text")
    monkeypatch.undo()
    assert len(voice.say("two")) > 0
