"""What messages name exists: commands with their options, extras of the package, and keys of corpus.yaml."""

from __future__ import annotations

import ast
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from pydantic import BaseModel

from mmdata.cli.main import app
from mmdata.config import Corpus
from training.config import TrainConfig

ROOT = Path(__file__).parents[1]
PACKAGES = ("mmdata", "pipelines", "training")
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
OPTION = re.compile(r"--[a-z0-9-]+|-[a-z]\b")


def messages() -> Iterator[tuple[str, str]]:
    """The place and the text of every string in the packages; `{}` stands for what is filled in."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            inside = {id(value) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for value in node.values}
            for node in ast.walk(tree):
                place = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
                if isinstance(node, ast.JoinedStr):
                    yield place, "".join(v.value if isinstance(v, ast.Constant) else "{}" for v in node.values)  # type: ignore[misc]
                elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
                    yield place, node.value


MESSAGES = [(place, text) for place, text in messages() if "Remedy" in text or "`" in text]


def matches(pattern: str) -> list[tuple[str, str]]:
    return sorted({(place, found) for place, text in MESSAGES for found in re.findall(pattern, text)})


@pytest.mark.parametrize(("place", "line"), matches(r"`mmdata ([a-z][^`]*)`"))
def test_a_command_that_a_message_names_exists_with_its_options(place: str, line: str) -> None:
    name, *rest = shlex.split(line)
    assert name in COMMANDS, place
    known = {option for parameter in COMMANDS[name].params for option in parameter.opts} | {"--help"}
    assert {word for word in rest if OPTION.fullmatch(word)} <= known, place


@pytest.mark.parametrize(("place", "extra"), matches(r"mmdata\[([a-z0-9,]+)\]"))
def test_an_extra_that_a_message_names_exists(place: str, extra: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(extra.split(",")) <= set(project["optional-dependencies"]), place


def keys_of(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield prefix + name
        for inner in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                yield from keys_of(inner, f"{prefix}{name}.")


CORPUS_KEYS, TRAIN_KEYS = set(keys_of(Corpus)), set(keys_of(TrainConfig))
SECTIONS = sorted({key.split(".")[0] for key in CORPUS_KEYS | TRAIN_KEYS if "." in key})
NO_KEYS = {"train.toml", "log.jsonl", "shards.json", "model.layers", "model.visual.preprocess_cfg", "download.images"}
"""Names of files and modules that look like keys."""


@pytest.mark.parametrize(
    ("place", "key"),
    [
        hit
        for hit in matches(rf"(?<![\w./-])((?:{'|'.join(SECTIONS)})\.[a-z_]+(?:\.[a-z_]+)*)(?![\w(/-])")
        if hit[1] not in NO_KEYS
    ],
)
def test_a_setting_that_a_message_names_exists(place: str, key: str) -> None:
    assert key in CORPUS_KEYS | TRAIN_KEYS, place
