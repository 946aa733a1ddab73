"""Read `corpus.yaml`: parse the YAML, check it against the models of mmdata.config, and explain what is wrong."""

from __future__ import annotations

import difflib
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from mmdata.config import Corpus
from mmdata.config.presets import check_preset
from mmdata.config.scorer_names import check_names
from mmdata.display import without_credentials
from mmdata.errors import UserError, describe_machine_error

SHOWN_CHARS = 200
"""How much of a wrong value an error shows."""

MAX_CONFIG_BYTES = 1_000_000
"""A larger corpus.yaml is a mistake, or an attack on the parser."""


def load_corpus(path: str | Path) -> Corpus:
    """Read `corpus.yaml`; relative paths in it become absolute, counted from its folder.

    Raises:
        UserError: the file is missing, is not YAML, or a key is unknown (names the nearest) or has a wrong value, or
            open_clip does not know the scorer, or the filter's preset has a threshold of another scorer.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise UserError(
                f"{path}: {path.stat().st_size} bytes are too many for a corpus.yaml (limit {MAX_CONFIG_BYTES})"
            )
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_PlainLoader)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file. Remedy: `mmdata init DIR` writes a commented corpus.yaml.") from None
    except OSError as error:
        raise UserError(describe_machine_error(error) or f"{path}: cannot be read ({error.strerror})") from None
    except RecursionError:
        raise UserError(
            f"{path}: nested too deeply. Remedy: start from the file that `mmdata init DIR` writes."
        ) from None
    except (yaml.YAMLError, ValueError) as error:  # a ValueError comes from an impossible date or number
        raise UserError(f"{path}: not valid YAML: {error}") from None
    corpus = parse_corpus(data, base=path.parent.resolve(), name=str(path))
    try:
        check_names(corpus.score)
        check_preset(corpus.select.filter, corpus.score)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return corpus


def parse_corpus(data: object, base: Path | None = None, name: str = "corpus") -> Corpus:
    """Check a mapping, as YAML gives it, against the model.

    Args:
        base: the folder from which relative paths count; None: relative paths stay as they are.
        name: the name of the file in error messages.

    Raises:
        UserError: what is wrong, a line for each mistake.
    """
    if not isinstance(data, dict):
        raise UserError(f"{name}: expected a mapping with `workspace` and `sources`, found {type(data).__name__}")
    try:
        return Corpus.model_validate(data, context={"folder": base})
    except ValidationError as error:
        raise UserError("\n".join(f"{name}: {line}" for line in explain_validation(error, Corpus))) from None


class _PlainLoader(yaml.SafeLoader):
    """SafeLoader without aliases: a corpus.yaml needs none, and nested aliases can fill the memory."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.YAMLError(f"line {mark.line + 1}: aliases (*name) are not allowed here; write the value out")
        return super().compose_node(parent, index)


def explain_validation(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """What is wrong with a configuration, a line for each mistake. An unknown key comes with the nearest known one.

    Args:
        model: the model that was validated.
    """
    lines = []
    for item in error.errors():
        where = ".".join(str(step) for step in item["loc"])
        if item["type"] == "extra_forbidden":
            *parents, key = item["loc"]
            known = _known_keys(model, parents)
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.0)
            hint = f"did you mean `{near[0]}`? " if near else ""
            lines.append(f"unknown key `{where}`: {hint}Known here: {', '.join(sorted(known))}.")
        else:
            text = item["msg"].removeprefix("Value error, ")
            got = "" if isinstance(item["input"], dict | list) else f", not {_shown(item['input'])}"
            lines.append(f"`{where}`: {text}{got}" if where else text)
    return lines


def _shown(value: Any) -> str:
    try:
        text = without_credentials(repr(value))
    except ValueError:
        return "a number of thousands of digits"
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}…"


def _known_keys(model: type[BaseModel], parents: list[int | str]) -> list[str]:
    candidates = [model]
    for step in parents:
        fields = candidates[0].model_fields
        if len(candidates) > 1:  # the kind that chooses between them; names and numbers of elements come before it
            candidates = [each for each in candidates if step in get_args(each.model_fields["kind"].annotation)] or (
                candidates
            )
        elif isinstance(step, str) and step in fields:
            candidates = _models_within(fields[step].annotation) or candidates
    return list(candidates[0].model_fields)


def _models_within(annotation: Any) -> list[type[BaseModel]]:
    """The models within a type: several where a key `kind` chooses between them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (list, dict, Union, UnionType, Annotated):
        return [model for inner in get_args(annotation) for model in _models_within(inner)]
    return []
