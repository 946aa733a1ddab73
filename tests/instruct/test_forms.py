"""Forms and templates: what goes in comes out, whatever a caption says."""

from __future__ import annotations

import json
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.instruct.forms import FORMS, Record, chat_form, is_record_file, line, llava_form, neutral, record_form
from mmdata.instruct.media_paths import member_path
from mmdata.instruct.templates import TEMPLATES, YES_NO, fill

texts = st.text(st.characters(blacklist_categories=("Cs",)), max_size=60) | st.just("<image> a <Image >\u2028 x")
paths = st.none() | st.just(member_path("0" * 32, "jpg", "train-c0000-00000-abc.tar"))
frames = st.integers(0, 9).map(
    lambda count: tuple(member_path("1" * 32, f"{at:03d}.jpg", "a.tar") for at in range(count))
)
sounds = st.none() | st.just(member_path("1" * 32, "flac", "train-c0000-00000-abc.tar"))


@st.composite
def records(draw: st.DrawFn) -> Record:
    output = draw(st.none() | texts)
    made = draw(paths) if output is None else None
    return Record(
        "id", "caption", "en", draw(texts), output, draw(paths), draw(paths), made, draw(frames), draw(sounds)
    )


@given(records())
def test_a_line_parses_back_to_the_form_and_is_one_line(record: Record) -> None:
    for form in FORMS.values():
        data = line(form(record))
        assert json.loads(data) == form(record)
        assert len(data.decode().splitlines()) == 1 and data.endswith(b"\n")


@given(records())
def test_the_four_names_are_always_there(record: Record) -> None:
    assert {"instruction", "input_image", "reference_image", "output"} <= set(record_form(record))
    assert record_form(record)["input_video"] == (list(record.input_video) or None)


@given(records())
def test_llava_has_as_many_markers_as_pictures(record: Record) -> None:
    form = llava_form(record)
    images = form.get("image", [])
    images = [images] if isinstance(images, str) else images
    markers = sum(turn["value"].count("<image>") for turn in form["conversations"])
    wanted = [record.input_image, record.reference_image, *record.input_video]
    assert images == [p for p in [*wanted, record.output_image] if p is not None]
    assert markers == len(images) + (record.output is None and record.output_image is None)
    assert sum(turn["value"].count("<audio>") for turn in form["conversations"]) == ("audio" in form)
    assert form.get("audio") == record.input_audio
    assert form["conversations"][0]["from"] == "human" and form["conversations"][1]["from"] == "gpt"


@given(records())
def test_chat_keeps_text_untouched_and_pictures_in_order(record: Record) -> None:
    user, assistant = chat_form(record)["messages"]
    assert [part["image"] for part in user["content"] if part["type"] == "image"] == [
        path for path in (record.input_image, record.reference_image, *record.input_video) if path is not None
    ]
    heard = [part["audio"] for part in user["content"] if part["type"] == "audio"]
    assert heard == ([] if record.input_audio is None else [record.input_audio])
    assert user["content"][-1] == {"type": "text", "text": record.instruction}
    assert assistant["role"] == "assistant" and len(assistant["content"]) == 1


@given(texts)
def test_neutral_text_has_no_marker_and_is_stable(text: str) -> None:
    assert "<image>" not in neutral(text).lower()
    assert "<audio>" not in neutral(f"{text}<Audio>").lower()
    assert neutral(neutral(text)) == neutral(text)


@given(st.text("ab{}caption ", max_size=20))
def test_a_value_that_looks_like_a_placeholder_stays_as_it_is(value: str) -> None:
    assert fill("“{caption}” or {question}?", caption=value, question="q") == f"“{value}” or q?"


@pytest.mark.parametrize("task", TEMPLATES)
def test_each_task_has_eight_templates_a_language_with_their_placeholders(task: str) -> None:
    needs = {"match": "caption", "text_to_image": "caption", "text_qa": "question", "step_order": "count"}.get(task)
    for templates in TEMPLATES[task].values():
        assert len(set(templates)) == len(templates) >= 8
        for template in templates:
            names = {name for _, name, _, _ in string.Formatter().parse(template) if name}
            assert names <= {needs, "reference_caption" if task == "reference_image" else None}
            assert needs is None or needs in names
    assert set(TEMPLATES[task]) == set(YES_NO)


@pytest.mark.parametrize(
    ("path", "is_file"),
    [("own.json", True), ("a/b.JSONL", True), ("x.ndjson", True), ("releases/latest", False), ("00c0ffee", False)],
)
def test_a_record_file_is_told_from_a_release_by_its_suffix(path: str, is_file: bool) -> None:
    assert is_record_file(path) == is_file
