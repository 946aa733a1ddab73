"""What is wrong with a record of a user's own file is said, whatever it is, and no record ends the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.made_release import flac, jpeg, tone
from tests.support.own_data import base64_of, in_chat_form, in_llava_form, in_record_form, write_pictures
from training.data.json_records import JsonRecord
from training.data.own_checks import Checked, RecordChecker
from training.data.own_media import EMBEDDED, MediaPlaces


@pytest.fixture
def checker(tmp_path: Path) -> RecordChecker:
    write_pictures(tmp_path, 3)
    (tmp_path / "cut.jpg").write_bytes(jpeg(1)[:-200])
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "tone.flac").write_bytes(flac(tone(440, 0.3), 16_000))
    return RecordChecker(MediaPlaces([tmp_path]))


def check(checker: RecordChecker, value: Any) -> Checked:
    return checker.check(JsonRecord(7, 0, 0, value))


@pytest.mark.parametrize(
    ("record", "places"),
    [
        (in_record_form("000.jpg"), [0]),
        (in_record_form("000.jpg", second="001.jpg"), [0, 0]),
        (in_record_form(base64_of(1, "")), [EMBEDDED]),
        (in_record_form(None), []),
        ({"instruction": "a", "input": "b", "output": "c"}, []),
        ({"instruction": "What do you hear?", "input_audio": "tone.flac", "output": "a tone"}, [0]),
        (in_llava_form(["000.jpg"]), [0]),
        (in_llava_form(["000.jpg", base64_of(2)]), [0, EMBEDDED]),
        (in_llava_form([]), []),
        (in_chat_form(["000.jpg"]), [0]),
        (in_chat_form([base64_of(1), "002.jpg"]), [EMBEDDED, 0]),
        ({"messages": [{"role": "system", "content": "Be brief."}, *in_chat_form(["000.jpg"])["messages"]]}, [0]),
    ],
)
def test_records_of_every_form_are_taken(checker: RecordChecker, record: Any, places: list[int]) -> None:
    checked = check(checker, record)
    assert checked.problem is None
    assert [place.number for place in checked.places] == places


TURN = {"role": "user", "content": "a"}
ANSWER = {"role": "assistant", "content": "b"}


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        (in_record_form("none.jpg"), "no picture or sound 'none.jpg'"),
        (in_record_form("https://example.org/a.jpg"), "training fetches nothing"),
        (in_chat_form(["https://example.org/a.jpg"]), "training fetches nothing"),
        (in_record_form("../a.jpg"), "leads out of the folder"),
        (in_record_form("data:image/png;base64,!!"), "broken base64"),
        (in_record_form(base64_of(1)[:-8]), "the picture in the record: "),
        (in_record_form("cut.jpg"), "the picture 'cut.jpg': undecodable"),
        (in_record_form("text.jpg"), "the picture 'text.jpg': undecodable"),
        ({"instruction": "a", "input_audio": "text.jpg", "output": "b"}, "the sound 'text.jpg': "),
        (in_record_form("000.jpg", said=" "), "an answer is empty"),
        ({"output": "b"}, "neither `instruction` nor"),
        ({"conversations": [{"from": "human", "text": "a"}]}, "the key 'value' is missing"),
        ({"conversations": [{"from": "bot", "value": "a"}]}, "the role 'bot'; the roles are user, human"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "the role 'tool'"),
        ({"messages": [TURN, ANSWER, ANSWER]}, "the turns are user, assistant, assistant"),
        ({"messages": [TURN, ANSWER, TURN]}, "user and assistant take turns, to an answer"),
        ({"messages": []}, "the turns are none"),
        ({"messages": [{"role": "user", "content": [{"type": "video", "video": "a"}]}]}, "a part of type 'video'"),
        ({**in_llava_form(["000.jpg"]), "image": ["000.jpg", "001.jpg"]}, "1 <image> markers for 2"),
        ({**in_llava_form(["000.jpg", "001.jpg"]), "image": "000.jpg"}, "2 <image> markers for 1"),
        (in_chat_form(["000.jpg"] * 33), "33 pictures, over 32"),
        ({"instruction": 3, "output": "b"}, "a value has a wrong type"),
        (in_record_form(5), "a value has a wrong type"),  # type: ignore[arg-type]
        ({"instruction": "a", "output": 5}, "a value has a wrong type"),
        ({"conversations": 5}, "a value has a wrong type"),
        ([], "a value has a wrong type|neither `instruction`"),
        ("text", "neither `instruction`"),
        (None, "a value has a wrong type"),
    ],
)
def test_bad_records_have_their_reason(checker: RecordChecker, record: Any, problem: str) -> None:
    checked = check(checker, record)
    assert checked.is_bad
    assert any(each in str(checked.problem) for each in problem.split("|")), checked.problem


def test_an_answer_that_is_a_picture_is_left_out_and_not_bad(checker: RecordChecker) -> None:
    checked = check(checker, {"instruction": "Draw a cat.", "output": None})
    assert checked.problem == "its answer is a picture, which no stage learns"
    assert not checked.is_bad


def test_a_picture_that_many_records_show_is_decoded_once(
    checker: RecordChecker, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    original = MediaPlaces.read
    monkeypatch.setattr(MediaPlaces, "read", lambda self, name, place: read.append(name) or original(self, name, place))
    for _ in range(3):
        assert check(checker, in_record_form("000.jpg")).problem is None
        assert check(checker, in_record_form("cut.jpg")).is_bad
    assert sorted(read) == ["000.jpg", "cut.jpg"]
