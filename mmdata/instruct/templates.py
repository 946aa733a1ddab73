"""Instruction templates by task and language; their texts are in templates.toml."""

from __future__ import annotations

import tomllib
from importlib import resources

_TEXTS = tomllib.loads((resources.files("mmdata.instruct") / "templates.toml").read_text(encoding="utf-8"))

TEMPLATES: dict[str, dict[str, list[str]]] = _TEXTS["templates"]
"""Task -> language -> templates."""

YES_NO: dict[str, list[str]] = _TEXTS["yes_no"]
LANGUAGE_NAMES: dict[str, dict[str, str]] = _TEXTS["language_names"]
"""Language of the template -> ISO 639-1 code -> name of that language."""

ANSWER_IN: dict[str, str] = _TEXTS["answer_in"]


def fill(template: str, **values: str) -> str:
    """Put values into a template. Braces and placeholders inside a value stay as they are."""
    text = template
    parts: list[str] = []
    while text:
        first = min(((text.find(f"{{{name}}}"), name) for name in values if f"{{{name}}}" in text), default=None)
        if first is None:
            break
        at, name = first
        parts += [text[:at], values[name]]
        text = text[at + len(name) + 2 :]
    return "".join([*parts, text])
