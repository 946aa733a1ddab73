"""Speech from captions: pure, by a draw of the uid, and its failures counted."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from mmdata.config import Synthesis
from mmdata.errors import DataError, UserError
from mmdata.media import espeak
from mmdata.media.espeak import Speaker
from mmdata.media.flac import SAMPLE_RATE, flac
from mmdata.media.synthesis import drawn_rows, speak_captions, speaker
from mmdata.samples import sample_uid


@pytest.fixture(scope="module")
def voice() -> Iterator[Speaker]:
    pytest.importorskip("espeakng_loader")
    with Speaker() as own:
        yield own


def rows_of(texts: list[str], kind: str = "text", **own: Any) -> list[dict[str, Any]]:
    common = {"kind": kind, "problem": None, "lang": "en", **own}
    return [{"uid": sample_uid(None, text), "caption": text, **common} for text in texts]


def tone(text: str, lang: str | None, voice: int) -> np.ndarray:
    if "mute" in text:
        raise DataError("nothing to say")
    return np.sin(np.arange(SAMPLE_RATE // 2) / SAMPLE_RATE * 2 * np.pi * 440).astype(np.float32) * 0.5


def decoded(data: bytes) -> tuple[np.ndarray, int]:
    av = pytest.importorskip("av")
    with av.open(io.BytesIO(data)) as container:
        frames = list(container.decode(audio=0))
    return np.concatenate([frame.to_ndarray()[0] for frame in frames]), frames[0].sample_rate


def test_what_was_said_before_leaves_no_trace(voice: Speaker) -> None:
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


def test_the_share_is_drawn_by_uid_whatever_stands_beside_it() -> None:
    rows = rows_of([f"text number {n}" for n in range(2000)])
    synthesis = Synthesis(speech=0.3)
    some = {row["uid"] for row in drawn_rows(rows, synthesis, 0)}
    assert 500 < len(some) < 700
    assert {row["uid"] for row in drawn_rows(rows[1000:], synthesis, 0)} == some & {row["uid"] for row in rows[1000:]}
    assert some <= {row["uid"] for row in drawn_rows(rows, Synthesis(speech=0.5), 0)}
    assert {row["uid"] for row in drawn_rows(rows, synthesis, 1)} != some
    assert drawn_rows(rows, Synthesis(), 0) == []


def test_bad_rows_and_other_kinds_are_not_spoken() -> None:
    rows = [
        *rows_of(["good"]),
        *rows_of(["bad"], problem="caption_too_long"),
        *rows_of(["picture"], kind="image"),
        *rows_of([""]),
    ]
    assert [row["caption"] for row in drawn_rows(rows, Synthesis(speech=1), 0)] == ["good"]
    assert len(drawn_rows(rows, Synthesis(speech=1, kinds=["text", "image"]), 0)) == 2


def test_a_function_of_ones_own_speaks_and_its_failures_are_told() -> None:
    synthesis = Synthesis(speech=1, synthesiser=f"{__name__}:tone")
    rows = rows_of(["hello", "mute"])
    spoken, failed = speak_captions(rows, synthesis, 0)
    assert list(spoken) == [rows[0]["uid"]]
    assert failed == {rows[1]["uid"]: "nothing to say"}
    assert spoken[rows[0]["uid"]].seconds == 0.5
    samples, rate = decoded(spoken[rows[0]["uid"]].flac)
    assert (len(samples), rate) == (SAMPLE_RATE // 2, SAMPLE_RATE)


def test_flac_holds_the_samples_and_is_the_same_again() -> None:
    wave = np.random.default_rng(0).uniform(-1.2, 1.2, 20_001).astype(np.float32)
    data = flac(wave)
    assert data == flac(wave)
    samples, rate = decoded(data)
    assert rate == SAMPLE_RATE
    assert np.array_equal(samples, np.round(np.clip(wave, -1, 1) * 32767).astype(np.int16))


@pytest.mark.parametrize("name", ["no_such_module:speak", "json:no_such_function", "espeakng"])
def test_a_synthesiser_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(UserError, match=r"synthesis\.synthesiser"), speaker(name):
        pass
