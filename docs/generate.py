"""Writes the generated reference pages: `make docs`. A test fails when one is stale.

The settings come from their models, the commands from the command line, the map of folders from the packages'
docstrings.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from mmdata.cli.main import app
from mmdata.config import Corpus
from training.config import TrainConfig

FOLDER = Path(__file__).parent

CORPUS = """# Configuration: corpus.yaml

<!-- Written by `make docs` from mmdata/config/; edit the models, not this page. -->

One YAML file describes a corpus. `mmdata init DIR` writes one with every key commented. Relative paths count from the
file's folder. An unknown key is an error that names the nearest known one; YAML aliases are refused.

"""


TRAINING = """# Configuration: train.toml

<!-- Written by `make docs` from training/config.py and model_config.py; edit the models, not this page. -->

A TOML file over a preset, for `mmdata train --settings FILE`; `--set key=value` goes over both. What the settings are
for: [training.md](training.md). An unknown key is an error that names the nearest known one.

"""


COMMANDS = """# The command line: mmdata

<!-- Written by `make docs` from mmdata/cli/; edit the commands, not this page. -->

Every command prints its help with `--help`. Exit codes: 0 done, 1 a problem in the data, 2 a mistake in the request,
130 stopped by Ctrl-C. `MMDATA_DEBUG=1` shows tracebacks.

"""

FOLDER_MAP = re.compile(r"(<!-- folders: written by `make docs` -->\n).*?(<!-- /folders -->)", re.S)


def pages() -> dict[Path, str]:
    """Each generated page and what it should hold, as Markdown."""
    settings = (("configuration.md", CORPUS, Corpus), ("training-configuration.md", TRAINING, TrainConfig))
    architecture = FOLDER / "architecture.md"
    return {
        **{FOLDER / name: head + _body(model) for name, head, model in settings},
        FOLDER / "cli.md": COMMANDS + "\n".join(_commands()),
        architecture: FOLDER_MAP.sub(
            lambda block: block[1] + _folder_map() + block[2], architecture.read_text("utf-8")
        ),
    }


def _folder_map() -> str:
    """One line a package: the first line of its docstring."""
    root = FOLDER.parent
    packages = sorted(
        path.parent for top in ("mmdata", "pipelines", "training") for path in (root / top).rglob("__init__.py")
    )
    docs = {
        path.relative_to(root): ast.get_docstring(ast.parse((path / "__init__.py").read_text("utf-8")))
        for path in packages
    }
    rows = [f"| `{path}/` | {(doc or '').splitlines()[0]} |" for path, doc in docs.items()]
    return "\n".join(["| folder | what is in it |", "|---|---|", *rows, ""])


def _commands() -> Iterator[str]:
    """A section for each command: its help, its arguments and its options."""
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    for name, command in group.commands.items():
        with command.make_context(name, [], resilient_parsing=True) as context:
            usage = " ".join(command.collect_usage_pieces(context))
            yield f"## mmdata {name}\n\n    mmdata {name} {usage}\n\n{(command.help or '').strip()}\n"
            records = [record for parameter in command.params if (record := _parameter(parameter, context))]
        if records:
            yield "\n".join(["| argument or option | meaning |", "|---|---|", *records, ""])


def _parameter(parameter: Any, context: Any) -> str | None:
    """A row of a command's table: click's own help record; None for what has none."""
    record = parameter.get_help_record(context)
    if record is None or "--help" in record[0]:
        return None
    name, meaning = (" ".join(text.split()).replace("|", "\\|") for text in record)
    return f"| `{name}` | {meaning} |"


def _body(model: type[BaseModel]) -> str:
    return "\n".join(_sections(model, "", "The top level")).rstrip() + "\n"


def _sections(model: type[BaseModel], path: str, title: str) -> list[str]:
    inner = {name: _models_of(field.annotation) for name, field in model.model_fields.items()}
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
    for name, children in inner.items():
        container = get_origin(model.model_fields[name].annotation)
        key = f"{path}{name}" + (".NAME" if container is dict else "")
        for child in children:
            kind = f" of kind `{get_args(child.model_fields['kind'].annotation)[0]}`" if len(children) > 1 else ""
            many = " (a list of these)" if container is list else ""
            lines += _sections(child, f"{key}.", f"`{key}`{kind}{many}")
    return lines


def _row(name: str, field: FieldInfo, children: list[type[BaseModel]], path: str) -> str:
    if children:
        return f"| `{name}` | section | | see `{path}{name}` below |"
    default = "required" if field.is_required() else f"`{_yaml(field.get_default(call_default_factory=True))}`"
    limits = ", ".join(filter(None, map(_limit, field.metadata)))
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
    if origin is Annotated:
        return _type(args[0])
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


def _models_of(annotation: Any) -> list[type[BaseModel]]:
    """The sections within a type: several where a key `kind` chooses between them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models_of(inner)]


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
