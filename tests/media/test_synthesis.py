"""Speech from captions: pure, by a draw of the uid, and its failures counted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mmdata.config import Synthesis
from mmdata.errors import DataError, UserError
from mmdata.media.flac import SAMPLE_RATE
from mmdata.media.synthesis import drawn_rows, speak_captions, speaker
from mmdata.samples import sample_uid
from tests.support.made_videos import wave_in


def rows_of(texts: list[str], kind: str = "text", **columns: Any) -> list[dict[str, Any]]:
    common = {"kind": kind, "problem": None, "lang": "en", **columns}
    return [{"uid": sample_uid(None, text), "caption": text, **common} for text in texts]


def tone(text: str, lang: str | None, voice: int) -> np.ndarray:
    if "mute" in text:
        raise DataError("nothing to say")
    return np.sin(np.arange(SAMPLE_RATE // 2) / SAMPLE_RATE * 2 * np.pi * 440).astype(np.float32) * 0.5


def test_rows_are_drawn_by_uid_whatever_the_other_rows_are() -> None:
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


def test_a_function_can_speak_and_its_failures_are_reported() -> None:
    synthesis = Synthesis(speech=1, synthesiser=f"{__name__}:tone")
    rows = rows_of(["hello", "mute"])
    spoken, failed = speak_captions(rows, synthesis, 0)
    assert list(spoken) == [rows[0]["uid"]]
    assert failed == {rows[1]["uid"]: "nothing to say"}
    assert spoken[rows[0]["uid"]].seconds == 0.5
    samples, rate, _ = wave_in(spoken[rows[0]["uid"]].flac)
    assert (len(samples), rate) == (SAMPLE_RATE // 2, SAMPLE_RATE)


@pytest.mark.parametrize("name", ["no_such_module:speak", "json:no_such_function", "espeakng"])
def test_a_missing_synthesiser_is_named(name: str) -> None:
    with pytest.raises(UserError, match=r"synthesis\.synthesiser"), speaker(name):
        pass
