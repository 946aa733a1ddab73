"""The three JSONL forms of an instruction record: `record`, LLaVA `conversations`, chat `messages`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_MARKERS = re.compile(r"<\s*(/?\s*(?:image|video|audio|im_start|im_end|im_patch))\s*>", re.IGNORECASE)

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_BREAKS = re.compile("[\x85\u2028\u2029]")


@dataclass(frozen=True, slots=True)
class Record:
    """One instruction and its answer.

    Args:
        id: `<uid>-<task>`.
        lang: of the template.
        output: the answer's text; None where the answer is a picture.
        input_image, reference_image, output_image: paths (see mmdata.instruct.images) or data URIs.
    """

    id: str
    task: str
    lang: str
    instruction: str
    output: str | None
    input_image: str | None = None
    reference_image: str | None = None
    output_image: str | None = None


def record_form(record: Record) -> dict[str, Any]:
    """`{"instruction", "input_image", "reference_image", "output"}`, always all four, null where there is none."""
    return {
        "id": record.id,
        "task": record.task,
        "lang": record.lang,
        "instruction": record.instruction,
        "input_image": record.input_image,
        "reference_image": record.reference_image,
        "output": record.output,
        "output_image": record.output_image,
    }


def llava_form(record: Record) -> dict[str, Any]:
    """LLaVA's: as many `<image>` as there are pictures, and `image` is one path or the list of them in that order.

    A marker that stands in the text itself (a caption may say `<image>`) becomes `[image]`, or it would be counted.
    """
    shown = [path for path in (record.input_image, record.reference_image) if path is not None]
    images = shown + ([record.output_image] if record.output_image is not None else [])
    asked = "<image>\n" * len(shown) + neutral(record.instruction)
    answer = "<image>" if record.output is None else neutral(record.output)
    form: dict[str, Any] = {"id": record.id, "task": record.task, "lang": record.lang}
    if images:
        form["image"] = images[0] if len(images) == 1 else images
    form["conversations"] = [{"from": "human", "value": asked}, {"from": "gpt", "value": answer}]
    return form


def chat_form(record: Record) -> dict[str, Any]:
    """Chat messages whose content is a list of typed parts, as chat templates of Hugging Face processors take them."""
    shown = [path for path in (record.input_image, record.reference_image) if path is not None]
    asked = [*({"type": "image", "image": path} for path in shown), {"type": "text", "text": record.instruction}]
    if record.output is None:
        answer: dict[str, Any] = {"type": "image", "image": record.output_image}
    else:
        answer = {"type": "text", "text": record.output}
    return {
        "id": record.id,
        "task": record.task,
        "lang": record.lang,
        "messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": [answer]}],
    }


FORMS: dict[str, Callable[[Record], dict[str, Any]]] = {"record": record_form, "llava": llava_form, "chat": chat_form}


def neutral(text: str) -> str:
    """Text without LLaVA's markers: `<image>` becomes `[image]`."""
    return _MARKERS.sub(lambda found: f"[{found[1]}]", text)


def line(form: dict[str, Any]) -> bytes:
    """One line of JSONL, UTF-8, also for readers that break lines at U+0085, U+2028 and U+2029."""
    text = _ENCODER.encode(form)
    if not text.isascii():
        text = _BREAKS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    return text.encode() + b"\n"
