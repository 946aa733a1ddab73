"""Instruction records of all forms become the same conversations."""

from __future__ import annotations

import json

import pytest

from training.data.conversations import Conversation, parse_record, with_fewer_frames
from training.data.text_codec import MEDIA_PLACEHOLDER, Turn


def test_private_marks_in_data_are_taken_out() -> None:
    chat = {
        "messages": [
            {"role": "user", "content": f"a{MEDIA_PLACEHOLDER}b"},
            {"role": "assistant", "content": f"{MEDIA_PLACEHOLDER}c"},
        ]
    }
    conversation = parse_record(chat)
    assert conversation is not None
    assert [turn.text for turn in conversation.turns] == ["ab", "c"]
    for record in (
        {"instruction": f"a{MEDIA_PLACEHOLDER}b", "output": f"{MEDIA_PLACEHOLDER}c"},
        {
            "conversations": [
                {"from": "human", "value": f"a{MEDIA_PLACEHOLDER}b"},
                {"from": "gpt", "value": f"{MEDIA_PLACEHOLDER}c"},
            ]
        },
    ):
        assert parse_record(record) == conversation


def test_llava_conversations_of_many_turns() -> None:
    said = ["<image>\nWhat is it?", "a cat", "And <image> this?", "a dog"]
    turns = [{"from": ("human", "gpt")[at % 2], "value": text} for at, text in enumerate(said)]
    conversation = parse_record({"image": ["one", "two"], "conversations": turns})
    assert conversation is not None
    assert [turn.text for turn in conversation.turns] == [text.replace("<image>", MEDIA_PLACEHOLDER) for text in said]
    assert [turn.role for turn in conversation.turns] == ["user", "assistant", "user", "assistant"]
    assert conversation.images == ["one", "two"]
    with pytest.raises(ValueError, match="2 <image> markers for 1 of them"):
        parse_record({"image": "one", "conversations": turns})


def frame(uid: int, at: int) -> str:
    return f"tar://{uid:032x}.{at:03d}.jpg::shards/a.tar"


@pytest.mark.parametrize(
    ("clips", "frames", "kept"),
    [
        ([8], 8, [list(range(8))]),
        ([8], 3, [[0, 4, 7]]),
        ([8], 1, [[4]]),
        ([2, 2, 2, 2], 8, [[0, 1]] * 4),
        ([2, 2, 2, 2], 4, [[1]] * 4),
        ([1, 1, 1], 1, [[0]] * 3),
        ([], 4, []),
    ],
)
def test_thinning_takes_markers_with_their_frames(clips: list[int], frames: int, kept: list[list[int]]) -> None:
    images = [frame(uid, at) for uid, count in enumerate(clips) for at in range(count)]
    turns = [Turn("user", f"{MEDIA_PLACEHOLDER}\n" * (len(images) + 1) + "What?"), Turn("assistant", "a")]
    conversation = with_fewer_frames(Conversation(turns, images, ["sound"]), frames)
    assert conversation.images == [frame(uid, at) for uid, places in enumerate(kept) for at in places]
    assert conversation.sounds == ["sound"]
    assert conversation.turns[0].text == f"{MEDIA_PLACEHOLDER}\n" * (len(conversation.images) + 1) + "What?"


def test_a_sound_before_a_picture_is_refused() -> None:
    llava = {
        "image": "a",
        "audio": "b",
        "conversations": [{"from": "human", "value": "<audio>\n<image>\nWhat?"}, {"from": "gpt", "value": "c"}],
    }
    parts = [{"type": "audio", "audio": "b"}, {"type": "image", "image": "a"}, {"type": "text", "text": "What?"}]
    chat = {"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": "c"}]}
    for record in (llava, chat):
        with pytest.raises(ValueError, match="pictures come first"):
            parse_record(record)
    with pytest.raises(ValueError, match="1 <audio> markers for 0 of them"):
        parse_record({"conversations": [{"from": "human", "value": "<audio>"}]})
    turned = json.loads(json.dumps(llava).replace("<audio>\\n<image>", "<image>\\n<audio>"))
    conversation = parse_record(turned)
    assert conversation is not None and (conversation.images, conversation.sounds) == (["a"], ["b"])


def test_chats_as_openai_and_qwen_write_them_are_one_conversation() -> None:
    def chat(*shown: dict[str, object]) -> Conversation | None:
        asked = [*shown, {"type": "text", "text": "What is it?"}]
        said = {"role": "assistant", "content": "a cat"}
        return parse_record(
            {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": asked}, said]}
        )

    expected = Conversation(
        [Turn("system", "Be brief."), Turn("user", f"{MEDIA_PLACEHOLDER}\nWhat is it?"), Turn("assistant", "a cat")],
        ["a.jpg"],
    )
    assert chat({"type": "image_url", "image_url": {"url": "a.jpg", "detail": "low"}}) == expected
    assert chat({"type": "image_url", "image_url": "a.jpg"}) == expected
    assert chat({"type": "image", "image": "a.jpg"}) == expected
    sound = chat({"type": "input_audio", "input_audio": {"data": "QUJD", "format": "wav"}})
    assert sound is not None
    assert sound.sounds == ["data:audio/wav;base64,QUJD"]


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        ({"messages": [{"role": "tool", "content": "a"}]}, "the role 'tool'; the roles are"),
        ({"conversations": [{"from": "bot", "value": "a"}]}, "the role 'bot'"),
        ({"messages": [{"role": "user", "content": [{"type": "video", "video": "a"}]}]}, "a part of type 'video'"),
    ],
)
def test_unknown_roles_and_parts_are_refused(record: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_record(record)


def test_the_input_of_alpaca_follows_the_instruction() -> None:
    conversation = parse_record({"instruction": "Translate.", "input": "Katze", "output": "cat"})
    assert conversation is not None
    assert conversation.turns[0].text == "Translate.\nKatze"
