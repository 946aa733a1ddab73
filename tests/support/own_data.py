"""A user's own pictures and instruction records, in every form."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support.made_release import jpeg

Json = dict[str, Any]


def write_pictures(folder: Path, count: int) -> list[str]:
    """Pictures `000.jpg`, `001.jpg`, … in a folder; their names."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{number:03}.jpg" for number in range(count)]
    for number, name in enumerate(names):
        (folder / name).write_bytes(jpeg(number))
    return names


def in_record_form(image: str | None, asked: str = "What is it?", said: str = "a cat", second: str = "") -> Json:
    return {"instruction": asked, "input_image": image, "reference_image": second, "output": said}


def in_llava_form(images: Sequence[str], asked: str = "What is it?", said: str = "a cat") -> Json:
    turns = [{"from": "human", "value": "<image>\n" * len(images) + asked}, {"from": "gpt", "value": said}]
    return {"image": images[0] if len(images) == 1 else list(images), "conversations": turns}


def in_chat_form(images: Sequence[str], asked: str = "What is it?", said: str = "a cat") -> Json:
    shown = [{"type": "image_url", "image_url": {"url": image}} for image in images]
    asked_parts = [*shown, {"type": "text", "text": asked}]
    return {"messages": [{"role": "user", "content": asked_parts}, {"role": "assistant", "content": said}]}


def base64_of(number: int, head: str = "data:image/jpeg;base64,") -> str:
    return head + base64.b64encode(jpeg(number)).decode()


def write_list(path: Path, records: Sequence[Any], indent: int | None = 1) -> Path:
    path.write_text(json.dumps(list(records), indent=indent), encoding="utf-8")
    return path


def write_lines(path: Path, records: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path
