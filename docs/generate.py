"""Writes the pages of settings from their models: `make docs`. A test fails when one is stale."""

from __future__ import annotations

from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from mmdata.config import Corpus
from training.config import TrainConfig

FOLDER = Path(__file__).parent

CORPUS = """# Configuration: corpus.yaml

<!-- Written by `make docs` from mmdata/config/; edit the models, not this page. -->

One YAML file describes a corpus. `mmdata init DIR` writes one with every key commented. Relative paths count from the
file's folder. An unknown key is an error that names the nearest known one; YAML aliases are refused.

"""


TRAINING = """# Configuration: train.toml

<!-- Written by `make docs` from training/config.py; edit the models, not this page. -->

A TOML file over a preset, for `mmdata train --config FILE`; `--set key=value` goes over both. What the settings are
for: [training.md](training.md). An unknown key is an error that names the nearest known one.

"""


def pages() -> dict[Path, str]:
    """Each generated page and what it should hold, as Markdown."""
    parts = (("configuration.md", CORPUS, Corpus), ("training-configuration.md", TRAINING, TrainConfig))
    return {FOLDER / name: head + _body(model) for name, head, model in parts}


def _body(model: type[BaseModel]) -> str:
    return "\n".join(_sections(model, "", "The top level")).rstrip() + "\n"


def _sections(model: type[BaseModel], path: str, title: str) -> list[str]:
    inner = {name: _model_of(field.annotation) for name, field in model.model_fields.items()}
    lines = [
        f"## {title}",
        "",
        (model.__doc__ or "").strip(),
        "",
        "| key | type | default | meaning |",
        "|---|---|---|---|",
    ]
    for name, field in model.model_fields.items():
        lines.append(_row(name, field, inner[name], path))
    lines.append("")
    for name, child in inner.items():
        if child is not None:
            key = f"{path}{name}"
            many = get_origin(model.model_fields[name].annotation) is list
            lines += _sections(child, f"{key}.", f"`{key}`" + (" (a list of these)" if many else ""))
    return lines


def _row(name: str, field: FieldInfo, child: type[BaseModel] | None, path: str) -> str:
    if child is not None:
        return f"| `{name}` | section | | see `{path}{name}` below |"
    default = "required" if field.is_required() else f"`{_yaml(field.get_default(call_default_factory=True))}`"
    limits = ", ".join(_limit(item) for item in field.metadata)
    meaning = (field.description or "").replace("|", "\\|") + (f" ({limits})" if limits else "")
    return f"| `{name}` | {_type(field.annotation)} | {default} | {meaning} |"


def _limit(item: Any) -> str:
    words = {"ge": "at least", "gt": "over", "le": "at most", "lt": "under", "min_length": "length at least"}
    for attribute, word in words.items():
        if getattr(item, attribute, None) is not None:
            return f"{word} {getattr(item, attribute):,}"
    return f"pattern `{item.pattern}`" if getattr(item, "pattern", None) else ""


def _type(annotation: Any) -> str:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " \\| ".join(f"`{value}`" for value in args)
    if origin in (Union, UnionType):
        return " \\| ".join("`null`" if arg is NoneType else _type(arg) for arg in args)
    if origin is list:
        return f"list of {_type(args[0])}"
    if origin is dict:
        return f"{_type(args[0])} -> {_type(args[1])}"
    if annotation is Any:
        return "anything"
    return {int: "integer", float: "number", str: "text", bool: "true/false"}.get(annotation, str(annotation))


def _yaml(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ", ".join(_yaml(item) for item in value) + "]"
    return str(value)


def _model_of(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((m for m in map(_model_of, get_args(annotation)) if m), None)


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
