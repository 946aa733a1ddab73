"""The three JSONL forms of an instruction record: `record`, LLaVA `conversations`, chat `messages`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

_MARKERS = re.compile(r"<\s*+(/?\s*+(?:image|video|audio|im_start|im_end|im_patch))\s*+>", re.IGNORECASE)

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_BREAKS = re.compile("[\x85\u2028\u2029]")
_SUFFIXES = (".json", ".jsonl", ".ndjson")


def is_record_file(path: str) -> bool:
    """Whether a path names a file of instruction records, and not a release."""
    return path.lower().endswith(_SUFFIXES)


@dataclass(frozen=True, slots=True)
class Record:
    """One instruction and its answer.

    Args:
        id: `<uid>-<task>`.
        lang: language of the template.
        output: text of the answer; None if the answer is a picture.
        input_image, reference_image, output_image: paths (see mmdata.instruct.media_paths) or data URIs.
        input_video: paths or data URIs of frames, in their order.
        input_audio: path or data URI of sound.
    """

    id: str
    task: str
    lang: str
    instruction: str
    output: str | None
    input_image: str | None = None
    reference_image: str | None = None
    output_image: str | None = None
    input_video: tuple[str, ...] = ()
    input_audio: str | None = None

    @property
    def shown(self) -> list[str]:
        """The pictures and frames that the instruction is about, in the order in which they are shown."""
        return [path for path in (self.input_image, self.reference_image, *self.input_video) if path is not None]


def record_form(record: Record) -> dict[str, Any]:
    """`{"instruction", "input_image", "reference_image", "output"}` and more, always all, null where there is none."""
    return {
        "id": record.id,
        "task": record.task,
        "lang": record.lang,
        "instruction": record.instruction,
        "input_image": record.input_image,
        "reference_image": record.reference_image,
        "input_video": list(record.input_video) or None,
        "input_audio": record.input_audio,
        "output": record.output,
        "output_image": record.output_image,
    }


def record_of(form: Mapping[str, Any]) -> Record:
    """Read back a record that `record_form` wrote."""
    return Record(**{**form, "input_video": tuple(form.get("input_video") or ())})


def llava_form(record: Record) -> dict[str, Any]:
    """LLaVA's form: one `<image>` per picture; `image` is the path, or the list of paths in that order.

    Frames count as pictures. `<audio>` follows them, and `audio` is the path of the sound.

    A marker within the text itself (a caption may contain `<image>`) becomes `[image]`, so that it is not counted.
    """
    images = record.shown + ([record.output_image] if record.output_image is not None else [])
    heard = "<audio>\n" if record.input_audio is not None else ""
    prompt = "<image>\n" * len(record.shown) + heard + neutral(record.instruction)
    answer = "<image>" if record.output is None else neutral(record.output)
    form: dict[str, Any] = {"id": record.id, "task": record.task, "lang": record.lang}
    if images:
        form["image"] = images[0] if len(images) == 1 else images
    if record.input_audio is not None:
        form["audio"] = record.input_audio
    form["conversations"] = [{"from": "human", "value": prompt}, {"from": "gpt", "value": answer}]
    return form


def chat_form(record: Record) -> dict[str, Any]:
    """Chat messages with a list of typed parts as content, the form that Hugging Face chat templates take."""
    content = [{"type": "image", "image": path} for path in record.shown]
    if record.input_audio is not None:
        content.append({"type": "audio", "audio": record.input_audio})
    content.append({"type": "text", "text": record.instruction})
    if record.output is None:
        answer: dict[str, Any] = {"type": "image", "image": record.output_image}
    else:
        answer = {"type": "text", "text": record.output}
    return {
        "id": record.id,
        "task": record.task,
        "lang": record.lang,
        "messages": [{"role": "user", "content": content}, {"role": "assistant", "content": [answer]}],
    }


FORMS: dict[str, Callable[[Record], dict[str, Any]]] = {"record": record_form, "llava": llava_form, "chat": chat_form}


def neutral(text: str) -> str:
    """The text with LLaVA's markers in square brackets: `<image>` becomes `[image]`."""
    return _MARKERS.sub(lambda match: f"[{match[1]}]", text)


def line(form: dict[str, Any]) -> bytes:
    """One line of JSONL in UTF-8. U+0085, U+2028 and U+2029 are escaped, since some readers break lines there."""
    text = _ENCODER.encode(form)
    if not text.isascii():
        text = _BREAKS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    return text.encode() + b"\n"
