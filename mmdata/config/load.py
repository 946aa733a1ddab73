"""Reading `corpus.yaml`: YAML in, the checked tree of mmdata.config out, and what is wrong with it in words."""

from __future__ import annotations

import difflib
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from mmdata.config import Corpus, Score, Source
from mmdata.display import without_credentials
from mmdata.errors import UserError

SHOWN_CHARS = 200  # of a wrong value
MAX_CONFIG_BYTES = 1_000_000  # a larger corpus.yaml is a mistake, or an alias bomb


def load_corpus(path: str | Path) -> Corpus:
    """Read `corpus.yaml`; relative paths in it become absolute, counted from its folder.

    Raises:
        UserError: the file is missing, is not YAML, or a key is unknown (names the nearest) or has a wrong value.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise UserError(f"{path}: {path.stat().st_size} bytes is no corpus.yaml (limit {MAX_CONFIG_BYTES})")
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_PlainLoader)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file. Remedy: `mmdata init DIR` writes a commented corpus.yaml.") from None
    except RecursionError:
        raise UserError(f"{path}: lists within lists within lists: nothing in a corpus.yaml lies so deep") from None
    except (yaml.YAMLError, ValueError) as error:  # a ValueError: a date or a number that there is none of
        raise UserError(f"{path}: not valid YAML: {error}") from None
    return parse_corpus(data, base=path.parent.resolve(), name=str(path))


def parse_corpus(data: object, base: Path | None = None, name: str = "corpus") -> Corpus:
    """Check a mapping, as YAML gives it, against the model.

    Args:
        base: folder that relative paths are counted from; None leaves them as they are.
        name: what error messages call the file.
    """
    if not isinstance(data, dict):
        raise UserError(f"{name}: expected a mapping with `workspace` and `sources`, found {type(data).__name__}")
    try:
        corpus = Corpus.model_validate(data)
    except ValidationError as error:
        raise UserError("\n".join(f"{name}: {line}" for line in explain_validation(error, Corpus))) from None
    return corpus if base is None else _anchor(corpus, base)


class _PlainLoader(yaml.SafeLoader):
    """SafeLoader without aliases: a corpus.yaml needs none, and nested ones are the classic memory bomb."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.YAMLError(f"line {mark.line + 1}: aliases (*name) are not allowed here; write the value out")
        return super().compose_node(parent, index)


def _anchor(corpus: Corpus, base: Path) -> Corpus:
    def absolute(text: str) -> str:
        return text if "://" in text or Path(text).is_absolute() else str(base / text)

    def placed(source: Source) -> Source:
        captions = {"captions": absolute(source.captions)} if source.captions else {}
        return source.model_copy(update={"files": absolute(source.files), **captions})

    sources = [placed(source) for source in corpus.sources]
    changes: dict[str, Any] = {"workspace": absolute(corpus.workspace), "sources": sources}
    changes["optout"] = [one.model_copy(update={"path": absolute(one.path)}) for one in corpus.optout]
    if corpus.select.balance.concepts:
        balance = corpus.select.balance.model_copy(update={"concepts": absolute(corpus.select.balance.concepts)})
        changes["select"] = corpus.select.model_copy(update={"balance": balance})
    changes["score"] = corpus.score.model_copy(update=_places_of_models(corpus.score, base))
    places = {key: absolute(value) for key in ("config", "output") if (value := getattr(corpus.train, key))}
    changes["train"] = corpus.train.model_copy(update=places)
    if corpus.alerts.webhook_file:
        changes["alerts"] = corpus.alerts.model_copy(update={"webhook_file": absolute(corpus.alerts.webhook_file)})
    if corpus.observe.metrics_textfile:
        place = absolute(corpus.observe.metrics_textfile)
        changes["observe"] = corpus.observe.model_copy(update={"metrics_textfile": place})
    return corpus.model_copy(update=changes)


def _places_of_models(score: Score, base: Path) -> dict[str, str]:
    """Models that lie beside corpus.yaml, by their absolute paths; anything else is a tag or a hub's id."""
    places = {}
    if score.pretrained and (base / score.pretrained).exists():
        places["pretrained"] = str(base / score.pretrained)
    for name in ("model", "audio_model", "transcriber"):
        place = getattr(score, name)
        if place and "/" in place and (base / place).is_dir():  # such as a scorer that `mmdata train` made
            places[name] = str(base / place)
    return places


def explain_validation(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """What is wrong with a configuration, a line a mistake; an unknown key comes with the nearest known one.

    Args:
        model: the root of the tree that was validated.
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
    for step in parents:
        if isinstance(step, str) and step in model.model_fields:
            model = _model_within(model.model_fields[step].annotation) or model
    return list(model.model_fields)


def _model_within(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (list, Union, UnionType, Annotated):
        for inner in get_args(annotation):
            if found := _model_within(inner):
                return found
    return None
